"""Projects to begin with, one folder for each language.

Files are copied as they are, with NAME put in for `{{name}}` and the folder of the C header for `{{c_sdk}}`, which only
an editor's settings name. `dot-` at the beginning of a name stands for a dot, so
that tools which look at this repository do not take a template's settings for its own.
"""

from __future__ import annotations

import re
import shutil
from enum import StrEnum
from pathlib import Path

from edgeclave.errors import ConfigurationError
from edgeclave.ta.build import WIT_FOLDER

_FOLDER = Path(__file__).parent
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")  # as in the manifest
_C_SDK = WIT_FOLDER.parent / "guest" / "c"
_DOT = "dot-"


class Language(StrEnum):
    """What a trusted application can be written in, with an SDK."""

    PYTHON = "python"
    C = "c"


def create_project(name: str, language: Language, folder: Path) -> None:
    """Makes the folder, complete or not at all.

    Raises:
        ConfigurationError: `bad-name`, `folder-exists`, `not-written`.
    """
    if not _NAME.match(name):
        raise ConfigurationError(
            "bad-name",
            f"{name!r} cannot name a trusted application",
            where="NAME",
            advice="use 1 to 63 lower-case letters, digits and hyphens, beginning with a letter",
        )
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigurationError(
                "folder-exists",
                "there is something here already, and it is left as it is",
                where=str(folder),
                advice="choose another NAME, or another folder with --dir",
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        _copy(_FOLDER / language.value, partial, name)
        partial.replace(folder)
    except OSError as error:
        raise ConfigurationError(
            "not-written",
            f"the project cannot be written: {error.strerror}",
            where=str(folder),
            advice="choose another folder with --dir",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy(template: Path, target: Path, name: str) -> None:
    shutil.rmtree(target, ignore_errors=True)
    for source in sorted(template.rglob("*")):
        if source.is_dir() or "__pycache__" in source.parts:
            continue
        parts = [
            f".{part.removeprefix(_DOT)}" if part.startswith(_DOT) else part
            for part in source.relative_to(template).parts
        ]
        path = target.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8").replace("{{name}}", name).replace("{{c_sdk}}", str(_C_SDK))
        path.write_text(text, encoding="utf-8")
        if text.startswith("#!"):
            path.chmod(0o755)
