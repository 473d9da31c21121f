"""`edgeclave ta new`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from edgeclave.develop.templates import Language, create_project


def new(
    name: Annotated[str, typer.Argument(help="Name of the trusted application: lower case, digits and hyphens.")],
    language: Annotated[Language, typer.Option("--lang", help="What to write it in.")] = Language.PYTHON,
    folder: Annotated[Path | None, typer.Option("--dir", help="Folder to make [NAME].")] = None,
) -> None:
    """Begin a trusted application: a small project that builds, runs and passes its tests at once.

    Example: edgeclave ta new thermometer --lang python
    """
    target = folder or Path(name)
    create_project(name, language, target)
    typer.echo(f"{target} is ready. Try:")
    typed = shlex.quote(str(target))
    for command in (f"edgeclave ta test {typed}", f"edgeclave ta run {typed} observe '{{\"celsius\": 21.5}}'"):
        typer.echo(f"  {command}")
