"""Putting what a toolchain made where the developer wants it, in one step."""

from __future__ import annotations

from pathlib import Path

from edgeclave.errors import ConfigurationError
from edgeclave.keys import write_whole


def write_built(made: Path, out: Path) -> None:
    """Copies `made` to `out`, never half a file. Raises ConfigurationError `build-not-written`."""
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
