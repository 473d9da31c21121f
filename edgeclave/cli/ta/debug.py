"""`edgeclave ta debug`: a C trusted application in the real emulator, under GDB."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgeclave.cli.ta.common import HERE
from edgeclave.develop.development_keys import development_reader, make_missing_authorities, recipient_set
from edgeclave.errors import ConfigurationError, EnclaveError
from edgeclave.platforms.base import CallOutcome, CallRequest, StartRequest
from edgeclave.platforms.debugger import Debugger
from edgeclave.platforms.emulator import Emulator
from edgeclave.ta.build import build_c, language_of
from edgeclave.ta.build.output import write_package
from edgeclave.ta.manifest import Manifest
from edgeclave.ta.signature import sign_package
from edgeclave.ta.signing import signing_key
from edgeclave.ta.source import load_source


def debug(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with ta.toml and app.c.")] = HERE,
    gdb_options: Annotated[list[str] | None, typer.Argument(metavar="-- GDB OPTIONS", help="Options for gdb.")] = None,
    method: Annotated[str | None, typer.Option("--method", help="Method to call \\[the only one].")] = None,
    payload: Annotated[str, typer.Option("--payload", help="Its payload, as JSON.")] = "null",
    batch_commands: Annotated[
        Path | None,
        typer.Option("--batch-commands", exists=True, dir_okay=False, help="gdb commands to run, then end."),
    ] = None,
) -> None:
    """Build a C trusted application for debugging and run one call of it in the emulator, under gdb.

    gdb has the terminal: set breakpoints, then `run` starts the enclave and makes the call. There are no deadlines, the
    evidence says debug, keys are made for this session, and nothing of it is kept. To follow pointers of the
    application, `print __vmctx->set()` at a stop, then as in `x/s &*payload.start`.

    Example: edgeclave ta debug thermometer --method observe --payload '{"celsius": 21.5}'
    """
    if language_of(folder) == "python":
        raise ConfigurationError(
            "no-debugger-for-python",
            "gdb would see the Python interpreter inside the WebAssembly, not your source",
            where=str(folder),
            advice="an exception's traceback with your source lines is in the log of `edgeclave ta run`; to step, call "
            "the application as plain Python through edgeclave_ta.testing, under pdb or debugpy",
        )
    debugger = Debugger(tuple(gdb_options or ()), batch_commands and batch_commands.resolve())
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for gdb
    with tempfile.TemporaryDirectory(prefix="edgeclave-debug-") as session:
        asyncio.run(_debug(folder, Path(session), debugger, method, payload))


async def _debug(folder: Path, session: Path, debugger: Debugger, method: str | None, payload: str) -> None:
    console = Console(stderr=True, highlight=False, emoji=False)
    keys = session / "keys"
    make_missing_authorities(folder, keys, lambda _: None)
    manifest = Manifest.from_map({**load_source(folder, keys).to_map(), "debug": True})
    method = method or _only_method(manifest)
    wasm = session / "debug.wasm"
    build_c(folder, wasm, lambda step: console.print(step, markup=False), debug=True)
    package = session / "debug.ta"
    signer, chain = signing_key(keys, "developer-of-this-session")
    write_package(package, wasm.read_bytes(), sign_package(manifest, wasm.read_bytes(), signer, chain), {})
    emulator = Emulator(session / "emulator", session / "cache", debugger)
    try:
        enclave = await emulator.start(
            package, StartRequest(slot=manifest.name, host_time=_now(), recipients=_recipients(manifest, keys))
        )
        outcome = await enclave.call(CallRequest(id="debug", method=method, payload=payload, host_time=_now()))
        _show(outcome, console)
        await enclave.stop()
    except EnclaveError as error:
        if error.code != "enclave-ended":
            raise
        console.print("gdb ended before the call was answered", markup=False)


def _only_method(manifest: Manifest) -> str:
    names = list(manifest.methods)
    if len(names) != 1:
        raise ConfigurationError(
            "no-method", f"there are {len(names)} methods: {', '.join(names)}", advice="choose one with --method"
        )
    return names[0]


def _show(outcome: CallOutcome, console: Console) -> None:
    if outcome.failure is not None:
        console.print(f"failure {outcome.failure.status}: {outcome.failure.message}", markup=False)
    else:
        typer.echo(outcome.reply)
    for result in outcome.results:
        console.print(f"emitted result {result.sequence} on {result.output}", markup=False)


def _recipients(manifest: Manifest, keys: Path) -> dict[str, bytes]:
    """What is emitted here is for a reader of this session and for nobody else."""
    reader = development_reader(keys).public_key()
    used = {name: recipient_set(name, output, keys, reader, None) for name, output in manifest.outputs.items()}
    return {name: given.message for name, given in used.items() if given is not None}


def _now() -> int:
    return time.time_ns() // 1_000_000
