"""`edgeclave ta build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeclave.cli.ta.common import HERE, Folder, progress
from edgeclave.develop.project import Project
from edgeclave.ta.build import build_wasm


def build(
    folder: Folder = HERE,
    out: Annotated[Path | None, typer.Option("--out", help="Wasm to write [DIR/build/NAME.wasm].")] = None,
) -> None:
    """Build the WebAssembly of a trusted application, from Python (app.py) or C (app.c), if its sources have changed.

    Example: edgeclave ta build modules/sample_analytics/trusted_app
    """
    project = Project.at(folder)
    target = out or project.wasm
    fresh = True
    with progress("building") as tell:
        if out is None:
            fresh = project.build(tell)
        else:
            build_wasm(folder, out, tell)
    typer.echo(f"{target} ({target.stat().st_size:,} bytes{'' if fresh else ', up to date'})")
