"""`ta run --serve`: calls from standard input, one a line, typed or piped."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from edgeclave.cli.ta.answers import show
from edgeclave.develop.emulated_app import EmulatedApp
from edgeclave.errors import EdgeclaveError

MAX_HISTORY_LINES = 1000
_HELP = """\
METHOD [PAYLOAD]   call a method; the payload is JSON on the same line, null when left out
methods            what can be called
help               this
quit               end, as the end of the input does"""


def serve_lines(app: EmulatedApp, history: Path, *, as_json: bool) -> None:
    """Calls each line until the input ends. From a terminal with prompt and history; from a pipe without.

    Raises:
        typer.Exit: with 1 when a call of a pipe failed.
    """
    failed = False
    interactive = sys.stdin.isatty()
    methods = app.running.package.manifest.methods
    if interactive:
        typer.echo(f"{app.running.package.manifest.name} runs, emulated. `help` shows how to call it.", err=True)
    if not interactive and isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # what is no UTF-8 is no JSON either: that call fails, not the command
    for line in _typed(history, sorted(methods)) if interactive else sys.stdin:
        word, _, payload = line.strip().partition(" ")
        if not word:
            continue
        if not payload and word not in methods and word in ("help", "methods", "quit"):
            if word == "quit":
                break
            listed = "\n".join(f"{name} ({method.channel})" for name, method in sorted(methods.items()))
            typer.echo(_HELP if word == "help" else listed)
            continue
        failed |= not _call(app, word, payload.strip() or "null", as_json=as_json)
    if failed and not interactive:
        raise typer.Exit(1)


def _call(app: EmulatedApp, method: str, payload: str, *, as_json: bool) -> bool:
    try:
        answer = app.call_text(method, payload)
    except EdgeclaveError as error:
        typer.echo(f"error [{error.code}]: {error.what}; a new instance is started", err=True)
        app.restart()
        return False
    show(answer, as_json=as_json)
    sys.stdout.flush()
    if answer.reply is None and not as_json:
        typer.echo(f"failed with {answer.status}: {answer.message}", err=True)
    return answer.reply is not None


def _typed(history: Path, methods: list[str]) -> Iterator[str]:
    import readline  # only here: importing it writes to a terminal that is none

    def complete(text: str, number: int) -> str | None:
        return [*(name for name in methods if name.startswith(text)), None][number]

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    readline.set_history_length(MAX_HISTORY_LINES)
    try:
        while True:
            yield input("> ")
    except EOFError:
        typer.echo(err=True)
    finally:
        with contextlib.suppress(OSError):
            os.close(os.open(history, os.O_CREAT | os.O_WRONLY, 0o600))
            readline.write_history_file(history)
