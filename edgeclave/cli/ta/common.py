"""What the commands of `edgeclave ta` share: their arguments, and how they show progress and fields."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgeclave import keys as key_folder

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder with ta.toml and app.py or app.c.")]
HERE = Path()
Keys = Annotated[Path, typer.Option("--keys", envvar=key_folder.FOLDER_VARIABLE, help="Key folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_lines(lines: Iterable[tuple[str, str]]) -> None:
    lines = list(lines)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        typer.echo(f"{name:<{width}}  {value}")


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[str], None]]:
    """Shows on standard error what is going on; the function it gives is told each step as it begins."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    with console.status(what) as status:

        def tell(step: str) -> None:
            if console.is_terminal:
                status.update(step)
            else:
                console.print(step, markup=False)

        yield tell
