"""Putting what a toolchain made where the developer wants it, in one step."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgeclave.errors import ConfigurationError


def write_built(made: Path, out: Path) -> None:
    """Copies `made` to `out`, never half a file. Raises ConfigurationError `build-not-written`."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Beside its destination first: the stage may lie on another file system.
        partial = out.with_name(f".{out.name}.partial")
        shutil.copyfile(made, partial)
        partial.replace(out)
    except OSError as error:
        raise ConfigurationError(
            "build-not-written",
            f"the WebAssembly cannot be written: {error.strerror}",
            where=str(out),
            advice="choose another place with --out",
        ) from error
