"""`edgeclave ta debug`: a C trusted application in the real emulator, under GDB."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from edgeclave import keys as key_folder
from edgeclave.errors import ConfigurationError, EnclaveError
from edgeclave.platforms.base import CallOutcome, CallRequest, StartRequest
from edgeclave.platforms.debugger import Debugger
from edgeclave.platforms.emulator import Emulator
from edgeclave.results.recipients import sign_recipient_set
from edgeclave.ta.build import build_c, language_of
from edgeclave.ta.manifest import Manifest
from edgeclave.ta.package import write_package
from edgeclave.ta.signature import sign_package
from edgeclave.ta.signing import signing_key
from edgeclave.ta.source import FILE_NAME, load_source

_READER = "reader-of-this-session"


def debug(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with ta.toml and app.c.")],
    gdb_options: Annotated[list[str] | None, typer.Argument(metavar="-- GDB OPTIONS", help="Options for gdb.")] = None,
    method: Annotated[str | None, typer.Option("--method", help="Method to call [the only one].")] = None,
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

    Example: edgeclave ta debug my-app --method observe --payload '{"temperature": 21}'
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
    console = Console(stderr=True, highlight=False)
    keys = session / "keys"
    _make_keys(folder / FILE_NAME, keys)
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
            package, StartRequest(slot=manifest.name, host_time=_now(), recipients=_recipients(folder, keys))
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


def _make_keys(manifest_file: Path, keys: Path) -> None:
    """A key for each authority that `ta.toml` names, and a reader: what is emitted here is for nobody else."""
    for name in {_READER, *_authorities(manifest_file).values()}:
        key_folder.create_key(keys, name)


def _recipients(folder: Path, keys: Path) -> dict[str, bytes]:
    reader = key_folder.load_public_key(key_folder.public_key_path(keys, _READER))
    return {
        output: sign_recipient_set(
            output, 1, [reader], key_folder.load_private_key(key_folder.private_key_path(keys, authority))
        )
        for output, authority in _authorities(folder / FILE_NAME).items()
        if output
    }


def _authorities(manifest_file: Path) -> dict[str, str]:
    """Output to name of its authority; under the empty name that of beacons. What is wrong is left to `load_source`."""
    try:
        value: dict[str, Any] = tomllib.loads(manifest_file.read_text(encoding="utf-8"))
        named = {output: table["recipient_authority"] for output, table in value.get("outputs", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    beacon = value.get("beacon_authority")
    names = {**named, **({"": beacon} if beacon else {})}
    return {output: name for output, name in names.items() if isinstance(name, str)}


def _now() -> int:
    return time.time_ns() // 1_000_000
