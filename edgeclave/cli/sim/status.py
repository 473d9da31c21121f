"""`edgeclave sim status` and `edgeclave sim offline`: what the running simulator does, and cutting it off."""

from __future__ import annotations

import asyncio
import json
from enum import StrEnum
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from edgeclave.cli.sim.options import DEFAULT_STATE, Json, State
from edgeclave.errors import ConfigurationError
from edgeclave.simulator.control import ModuleStatus, Status, UpstreamOrder, ask

NOT_RUNNING = 3  # as `systemctl status` has it
_STYLES = {"running": "green", "failed": "red", "backoff": "yellow"}


class Switch(StrEnum):
    ON = "on"
    OFF = "off"


def status_command(state: State = DEFAULT_STATE, as_json: Json = False) -> None:
    """Show the modules, who is connected, and what waits.

    Exit codes: 0 it runs; 3 no simulator runs on this state directory.

    Example: edgeclave sim status --json
    """
    try:
        document = asyncio.run(ask(state, "GET", "/status"))
    except ConfigurationError as error:
        if error.code != "simulator-not-running":
            raise
        typer.echo(json.dumps({"running": False}) if as_json else f"not running ({state})")
        raise typer.Exit(NOT_RUNNING) from None
    if as_json:
        typer.echo(json.dumps({"running": True, **document}, indent=2))
    else:
        _print(msgspec.convert(document, Status))


def offline(
    switch: Annotated[Switch, typer.Argument(help="on: cut the device off from IoT Hub; off: connect it again.")],
    state: State = DEFAULT_STATE,
) -> None:
    """Cut the edge device off from IoT Hub, as an outage does, or connect it again.

    Modules stay connected to edgeHub, which keeps their messages on disk; twins and methods of the service do not
    reach them. It stays so until it is switched off, over restarts too.

    Example: edgeclave sim offline on
    """
    asyncio.run(ask(state, "PUT", "/upstream", UpstreamOrder(online=switch is Switch.OFF)))


def _print(status: Status) -> None:
    console = Console(highlight=False, emoji=False, soft_wrap=True)
    console.print(f"IoT Hub {status.hub} and edge device {status.device_id}, simulated, on {status.address}")
    upstream = "[green]online[/]" if status.online else "[red]offline[/]"
    waiting = f", {status.waiting_upstream} waiting" if status.waiting_upstream else ""
    console.print(f"upstream {upstream}; messages: {status.events} arrived{waiting}")
    if status.deployment_problem:
        console.print(f"[red]deployment refused[/] {status.deployment_problem}", markup=True)
    table = Table(box=None, pad_edge=False)
    for column in ("module", "status", "connected", "restarts", "waiting"):
        table.add_column(column, no_wrap=True)
    table.add_column("", overflow="fold")  # a name that is cut off cannot be copied
    for module in status.modules:
        table.add_row(*_row(module))
    console.print(table)


def _row(module: ModuleStatus) -> tuple[str, ...]:
    style = _STYLES.get(module.status, "dim")
    return (
        module.module_id,
        f"[{style}]{module.status or '-'}[/]",
        "yes" if module.connected else "no",
        str(module.restart_count or ""),
        str(module.waiting_inputs or ""),
        module.description.replace("[", "\\["),
    )
