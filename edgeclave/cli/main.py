"""`edgeclave`: mounts the command groups and turns errors into something a person can act on.

Only the group that was asked for is imported, so that `edgeclave ta` starts fast and works where the cloud SDKs are not
installed.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

import edgeclave
from edgeclave.errors import EdgeclaveError

# name -> (module, what it is for); a module offers either `app` (a group) or a function of the command's name
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": (
        "edgeclave.cli.demo",
        "Run the main job to its end on this machine: three modules, sealed results, a reader.",
    ),
    "ta": ("edgeclave.cli.ta", "Trusted applications: begin, build, run, test, debug, sign, inspect, push."),
    "keys": ("edgeclave.cli.keys", "The key folder: signing keys, recipient authorities, readers."),
    "recipients": ("edgeclave.cli.recipients", "Who may read which output."),
    "platform": ("edgeclave.cli.platform", "The TEEs of this machine, and the emulator's trust anchor."),
    "sim": ("edgeclave.cli.sim", "The local simulator: IoT Hub and IoT Edge for unmodified Azure SDKs."),
    "deployment": ("edgeclave.cli.deployment", "Deployment templates: what is wrong in them, line by line."),
    "policy": ("edgeclave.cli.policy", "What a relying party accepts."),
    "verify": ("edgeclave.cli.verify", "Verify a quote, report, evidence or sealed result from a file, offline."),
    "verifier": ("edgeclave.cli.verifier", "The verifier as a service, for relying parties that ask over HTTP."),
    "endorsements": ("edgeclave.cli.endorsements", "What vendors say about platforms: certificates, revocations, TCB."),
    "deploy": (
        "edgeclave.cli.deploy",
        "Deploy to one device or to all with a tag: what changes, apply it, watch until it runs.",
    ),
    "archive": ("edgeclave.cli.archive", "What `edgeclave consume --archive` keeps: have it timestamped."),
    "consume": ("edgeclave.cli.consume", "Read, verify and open sealed results in the cloud."),
}

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; returns its exit code (1: refused with an explanation, 2: wrong usage)."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    try:
        application = build(arguments[0] if arguments else None)
        code = application(list(arguments), prog_name="edgeclave", standalone_mode=True)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except EdgeclaveError as error:
        show_error(error)
        return 1
    except BrokenPipeError:
        return 0
    except OSError as error:
        if error.errno not in _DISK_FULL:
            return _defect(error, errors)
        where = f"{error.filename}" if error.filename else "the output of this command, or a file that it writes"
        show_error(EdgeclaveError("disk-full", error.strerror or "", where=where, advice="free space there"))
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return _defect(error, errors)
    return code if isinstance(code, int) else 0


def _defect(error: Exception, errors: Console) -> int:
    if os.environ.get("EDGECLAVE_DEBUG"):
        raise error
    errors.print(f"error [internal]: {type(error).__name__}: {error}", style="bold red", markup=False)
    errors.print("  do:    this is a defect; run again with EDGECLAVE_DEBUG=1 and report what it prints")
    return 1


def show_error(error: EdgeclaveError) -> None:
    """Writes an error to stderr as a person can act on it."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    errors.print("error", style="bold red", end="")
    errors.print(f" [{error.code}]: {error.what}", markup=False)
    if error.where:
        errors.print(f"  where: {error.where}", markup=False)
    if error.advice:
        errors.print(f"  do:    {error.advice}", markup=False)


def build(wanted: str | None) -> typer.Typer:
    """The application with the wanted command loaded and the others as names with their help."""
    application = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Trusted applications for Azure IoT Edge.\n\nExample: `edgeclave demo`, then `edgeclave ta --help`.",
    )
    application.callback()(_version)
    for name, (module_name, summary) in COMMANDS.items():
        if name != wanted:
            application.command(name, help=summary)(_not_loaded)
            continue
        module = _load(module_name)
        if hasattr(module, "app"):
            application.add_typer(module.app, name=name, help=summary, no_args_is_help=True)
        else:
            application.command(name)(getattr(module, name))
    return application


def _load(module_name: str) -> object:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "edgeclave":
            raise
        raise EdgeclaveError(
            "missing-extra",
            f"this command needs the package that provides `{missing}`, which is not installed",
            advice="install `edgeclave[simulator,build]`, or on a development checkout run `make install`",
        ) from error


def _not_loaded() -> None:
    raise AssertionError("only the wanted command is ever run")


def _show_version(value: bool) -> None:
    if value:
        typer.echo(edgeclave.__version__)
        raise typer.Exit


def _version(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
