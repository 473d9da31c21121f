"""`edgeclave sim logs`: what modules, and the simulator itself, have written."""

from __future__ import annotations

import sys
import time
from collections import deque
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from edgeclave.cli.sim.options import DEFAULT_STATE, State
from edgeclave.errors import ConfigurationError

POLL_SECONDS = 0.2
_CHUNK_BYTES = 64 * 1024


def logs(
    module: Annotated[str, typer.Argument(help="The module, or `simulator` for the simulator's own log.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only so many lines of what is there.")] = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Print the log of a module; it need not run any more.

    Example: edgeclave sim logs ta_runner -f --tail 20
    """
    path = state / "logs" / f"{module}.log"
    if not path.is_file() or path.parent != state / "logs":
        known = sorted(each.stem for each in (state / "logs").glob("*.log"))
        raise ConfigurationError(
            "no-such-log",
            f"there is no log of {module!r}",
            where=str(state / "logs"),
            advice=f"there are logs of {', '.join(known)}" if known else "start the simulator with `edgeclave sim up`",
        )
    with path.open("rb") as file:
        _print_present(file, tail)
        while follow:
            _print_new(file, path)
            time.sleep(POLL_SECONDS)


def _print_present(file: BinaryIO, tail: int | None) -> None:
    if tail is not None:
        for line in deque(file, maxlen=tail):
            sys.stdout.buffer.write(line)
    else:
        while chunk := file.read(_CHUNK_BYTES):
            sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def _print_new(file: BinaryIO, path: Path) -> None:
    if path.stat().st_size < file.tell():  # cut, because it grew too long
        file.seek(0)
    while chunk := file.read(_CHUNK_BYTES):
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
