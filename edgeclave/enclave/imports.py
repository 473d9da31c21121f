"""What a component may import: nothing but this list (DESIGN section 5).

`edgeclave:ta/tee` is the TEE. The `wasi:*` interfaces are those that the Python toolchain links in whether used or not;
they are served by an empty context: no files, environment, arguments or sockets; time and randomness work.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgeclave.errors import PackageError

TEE_INTERFACE = "edgeclave:ta/tee@1.0.0"
_WASI_VERSION = re.compile(r"@0\.2\.\d{1,3}\Z")
_WASI_INTERFACES = frozenset(
    {
        "wasi:cli/environment",
        "wasi:cli/exit",
        "wasi:cli/stderr",
        "wasi:cli/stdin",
        "wasi:cli/stdout",
        "wasi:cli/terminal-input",
        "wasi:cli/terminal-output",
        "wasi:cli/terminal-stderr",
        "wasi:cli/terminal-stdin",
        "wasi:cli/terminal-stdout",
        "wasi:clocks/monotonic-clock",
        "wasi:clocks/wall-clock",
        "wasi:filesystem/preopens",
        "wasi:filesystem/types",
        "wasi:io/error",
        "wasi:io/poll",
        "wasi:io/streams",
        "wasi:random/insecure",
        "wasi:random/insecure-seed",
        "wasi:random/random",
        "wasi:sockets/instance-network",
        "wasi:sockets/ip-name-lookup",
        "wasi:sockets/network",
        "wasi:sockets/tcp",
        "wasi:sockets/tcp-create-socket",
        "wasi:sockets/udp",
        "wasi:sockets/udp-create-socket",
    }
)


def is_wasi(name: str) -> bool:
    return _WASI_VERSION.search(name) is not None and _WASI_VERSION.sub("", name) in _WASI_INTERFACES


def check_imports(names: Iterable[str]) -> None:
    """Raises PackageError `import-refused`, naming each import that is not on the list."""
    refused = sorted(name for name in names if name != TEE_INTERFACE and not is_wasi(name))
    if refused:
        raise PackageError(
            "import-refused",
            f"the trusted application imports what no TEE offers it: {', '.join(refused)[:300]}",
            where="Wasm",
            advice=f"use only {TEE_INTERFACE} and what the Python toolchain links in",
        )
