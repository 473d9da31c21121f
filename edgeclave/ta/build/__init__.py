"""Builds trusted applications: one file per language, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from edgeclave.errors import ConfigurationError
from edgeclave.ta.build.c import GUEST_C, build_c, c_compiler_version, c_sources
from edgeclave.ta.build.python import GUEST_PYTHON, WIT_FOLDER, build_python, builder_version

__all__ = [
    "GUEST_C",
    "GUEST_PYTHON",
    "WIT_FOLDER",
    "build_c",
    "build_python",
    "build_wasm",
    "builder_version",
    "c_compiler_version",
    "language_of",
]

Language = Literal["python", "c"]


def build_wasm(source_dir: Path, out_wasm: Path, progress: Callable[[str], None] | None = None) -> None:
    """Builds the folder of a trusted application by the language it is written in.

    Raises:
        ConfigurationError: `no-source`, `two-languages`, `missing-extra`, `build-not-written`.
        PackageError: what the toolchain says of the sources.
    """
    build = build_python if language_of(source_dir) == "python" else build_c
    build(source_dir, out_wasm, progress)


def language_of(source_dir: Path) -> Language:
    """`app.py` makes it Python, any `*.c` makes it C. Raises ConfigurationError `no-source`, `two-languages`."""
    is_python, is_c = (source_dir / "app.py").is_file(), bool(c_sources(source_dir))
    if is_python and is_c:
        raise ConfigurationError(
            "two-languages",
            "there are app.py and C sources, and a trusted application is written in one language",
            where=str(source_dir),
            advice="move one of them to a folder of its own",
        )
    if not is_python and not is_c:
        raise ConfigurationError(
            "no-source",
            "there is no app.py and no C source to build",
            where=str(source_dir),
            advice="name the folder of a trusted application: app.py or app.c beside ta.toml",
        )
    return "python" if is_python else "c"
