"""Putting what was made, WebAssembly or a package, where the developer wants it, in one step: never half a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeclave.errors import ConfigurationError
from edgeclave.keys import write_whole
from edgeclave.ta.package import encode_package


def write_built(made: Path, out: Path) -> None:
    """Copies `made` to `out`. Raises ConfigurationError `build-not-written`."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, made.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            "build-not-written",
            f"the WebAssembly cannot be written: {error.strerror}",
            where=str(out),
            advice="choose another place with --out",
        ) from error


def write_package(path: Path, wasm: bytes, signature: bytes, annotations: Mapping[str, str]) -> str:
    """Writes the package and returns its digest, `sha256:<hex>`.

    Raises:
        PackageError: `package-too-large`.
        OSError: it cannot be written.
    """
    data, digest = encode_package(wasm, signature, annotations)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)
    return digest
