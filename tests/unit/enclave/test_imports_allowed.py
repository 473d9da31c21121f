from __future__ import annotations

import pytest

from edgeclave.enclave.imports import TEE_INTERFACE, check_imports
from edgeclave.errors import PackageError


def test_the_tee_and_what_the_python_toolchain_links_in() -> None:
    check_imports([TEE_INTERFACE, "wasi:io/poll@0.2.9", "wasi:clocks/monotonic-clock@0.2.0", "wasi:cli/exit@0.2.12"])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("edgeclave:ta/tee@1.1.0", id="a later TEE interface"),
        pytest.param("edgeclave:ta/tee", id="no version"),
        pytest.param("wasi:http/outgoing-handler@0.2.0", id="HTTP"),
        pytest.param("wasi:io/poll@0.3.0", id="another WASI"),
        pytest.param("wasi:io/poll@0.2.0-rc", id="a release candidate"),
        pytest.param("wasi:keyvalue/store@0.2.0", id="an unlisted WASI interface"),
        pytest.param("host:thing/open@1.0.0", id="something else"),
        pytest.param("open", id="a plain function"),
    ],
)
def test_everything_else_is_refused_by_name(name: str) -> None:
    with pytest.raises(PackageError) as refusal:
        check_imports([TEE_INTERFACE, name])
    assert refusal.value.code == "import-refused"
    assert name in refusal.value.what
