"""`edgeclave ta run`: one call, or many, in the real emulator."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from edgeclave.cli.ta.answers import show, show_log
from edgeclave.cli.ta.common import HERE, Json, Keys, progress
from edgeclave.cli.ta.repl import serve_lines
from edgeclave.develop.device import Device
from edgeclave.develop.emulated_app import CallFailure, EmulatedApp
from edgeclave.develop.project import Project
from edgeclave.errors import ConfigurationError
from edgeclave.keys import DEFAULT_FOLDER
from edgeclave.ta.source import read_name

DEFAULT_STATE = Path(".edgeclave/run")
SECONDS_UNTIL_TOLD = 1.0  # a start from compiled code takes a quarter of it
MAX_PAYLOAD_BYTES = 1 << 20  # no manifest may allow more (limits.message_kib)


def run(
    target: Annotated[Path, typer.Argument(metavar="DIR|FILE.ta", help="A project's folder, or a package.")] = HERE,
    method: Annotated[str | None, typer.Argument(help="The method to call.")] = None,
    payload: Annotated[
        str, typer.Argument(help="JSON, @FILE that holds it, or - for standard input. A negative number: after --.")
    ] = "null",
    serve: Annotated[bool, typer.Option("--serve", help="Read calls from standard input, one a line.")] = False,
    state: Annotated[
        Path | None,
        typer.Option("--state", file_okay=False, help="The emulated device [DIR/build/run; FILE.ta: .edgeclave/run]."),
    ] = None,
    keys: Keys = DEFAULT_FOLDER,
    as_json: Json = False,
) -> None:
    """Call a trusted application in the software TEE emulator, which starts it as a device does.

    A project's folder is built and signed with the development key where something changed. Trusted storage is kept
    for the next run. What the application emits is opened with a development reader's key; its log goes to standard
    error. Exit code 1: the call failed.

    Example: edgeclave ta run thermometer observe '{"celsius": 21.5}'
    """
    if (method is None) != serve:
        raise ConfigurationError(
            "bad-usage",
            "name a method, or give --serve to read calls from standard input",
            advice="as in `edgeclave ta run DIR METHOD '{\"value\": 2}'`",
        )
    text = read_payload(payload)
    show_log()
    with contextlib.ExitStack() as stack:
        with progress("preparing") as tell:
            app = _app(target, state, keys, tell)
            compiling = threading.Timer(SECONDS_UNTIL_TOLD, tell, ["compiling it for this machine, once a version"])
            compiling.start()
            try:
                stack.enter_context(app)
            finally:
                compiling.cancel()
        if method is None:
            serve_lines(app, (state or _state_of(target)) / "history", as_json=as_json)
            return
        answer = app.call_text(method, text)
    show(answer, as_json=as_json)
    if answer.reply is None:
        if as_json:
            raise typer.Exit(1)
        raise CallFailure(method, answer.status, answer.message)


def read_payload(payload: str) -> str:
    """The JSON text that the argument stands for.

    Raises:
        ConfigurationError: `no-payload`, `payload-too-large`.
    """
    try:
        if not payload.startswith("@") and payload != "-":
            payload.encode()  # an argument that is no UTF-8 cannot be sent
            return payload
        with contextlib.nullcontext(sys.stdin.buffer) if payload == "-" else Path(payload[1:]).open("rb") as file:
            data = file.read(MAX_PAYLOAD_BYTES + 1)
        text = data.decode()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            "no-payload",
            f"the payload cannot be read: {error}",
            where=payload.encode(errors="backslashreplace").decode(),
            advice="give JSON, @FILE that holds it as UTF-8, or - for standard input",
        ) from error
    if len(data) > MAX_PAYLOAD_BYTES:
        raise ConfigurationError(
            "payload-too-large",
            f"the payload is over {MAX_PAYLOAD_BYTES} bytes, more than any trusted application may take",
            where=payload,
            advice="send it in several calls",
        )
    return text


def _app(target: Path, state: Path | None, keys: Path, tell: Callable[[str], None]) -> EmulatedApp:
    folder = state or _state_of(target)
    if target.is_dir():
        project = Project.at(target)
        package, name = project.development_package(keys, tell), project.name
    else:
        package, name = target, target.stem
    return EmulatedApp(package, Device(folder, folder / "slots" / f"{name}.state", keys), tell)


def _state_of(target: Path) -> Path:
    return Project(target, read_name(target)).run_folder if target.is_dir() else DEFAULT_STATE
