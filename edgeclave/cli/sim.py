"""`edgeclave sim`: the local simulator of IoT Hub and IoT Edge."""

from __future__ import annotations

import asyncio
import json
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from edgeclave.simulator.join import connection_of, environment_of
from edgeclave.simulator.up import Applied, Event, ModuleChanged, Note, Started, Stopped, up

app = typer.Typer(help="The local simulator: IoT Hub and IoT Edge for unmodified Azure SDKs.")

DEFAULT_STATE = Path(".edgeclave/sim")
DEFAULT_TEMPLATE = Path("deployment.template.json")

State = Annotated[Path, typer.Option("--state", help="Where the simulator keeps everything.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_STYLES = {"running": "green", "failed": "red", "backoff": "yellow"}


class Service(StrEnum):
    """What a connection string is for."""

    SERVICE = "service"
    EVENTHUB = "eventhub"
    PROVISIONING = "provisioning"


@app.command("up")
def up_command(
    template: Annotated[Path, typer.Argument(help="The deployment template.")] = DEFAULT_TEMPLATE,
    state: State = DEFAULT_STATE,
    seconds: Annotated[float | None, typer.Option("--for", min=0, help="Stop after this many seconds.")] = None,
    as_json: Json = False,
) -> None:
    """Start the simulator, apply the deployment, run its modules, until Ctrl-C or SIGTERM.

    Example: edgeclave sim up --for 60
    """
    console = Console(highlight=False, soft_wrap=True)

    def show(event: Event) -> None:
        if as_json:
            typer.echo(msgspec.json.encode(event))
        else:
            _print(console, event)

    asyncio.run(up(template, state, seconds, show))


@app.command()
def env(
    module_id: Annotated[str, typer.Argument(help="The module to be.")],
    state: State = DEFAULT_STATE,
    as_json: Json = False,
) -> None:
    """Print the environment that makes a program of yours a module of the simulator.

    The module is created if it is missing. Then IoTHubModuleClient.create_from_edge_environment() works as it does on a
    device.

    Example: eval "$(edgeclave sim env my_module)" && python my_module.py
    """
    environment = asyncio.run(environment_of(state, module_id))
    if as_json:
        typer.echo(json.dumps(environment, indent=2))
        return
    for name, value in environment.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command("connection-string")
def connection_string_command(
    service: Annotated[
        Service, typer.Argument(help="service: azure-iot-hub; eventhub: azure-eventhub; provisioning: the enrolments.")
    ],
    state: State = DEFAULT_STATE,
    policy: Annotated[str, typer.Option("--policy", help="A shared access policy with fewer rights.")] = "",
    as_json: Json = False,
) -> None:
    """Print the connection string for a service SDK. It is a secret of this simulator.

    The SDKs must trust its CA: azure-iot-hub by REQUESTS_CA_BUNDLE, azure-eventhub by connection_verify.

    Example: edgeclave sim connection-string eventhub --json
    """
    text, ca_file, device_id = asyncio.run(connection_of(state, service.value, policy))
    if as_json:
        typer.echo(json.dumps({"connectionString": text, "caFile": ca_file, "deviceId": device_id}, indent=2))
    else:
        typer.echo(text)


def _print(console: Console, event: Event) -> None:
    if isinstance(event, Started):
        console.print(f"IoT Hub {event.hub} and edge device {event.device_id}, simulated, on {event.address}")
        console.print(f"  CA file  {event.ca_file}", markup=False)
        console.print(f"  logs     {event.state_directory}/logs", markup=False)
    elif isinstance(event, Note):
        console.print(f"[yellow]note[/] {event.text}")
    elif isinstance(event, Applied):
        console.print(
            f"deployment applied: {', '.join(event.modules) or 'no modules'} ({event.manifest})", markup=False
        )
    elif isinstance(event, ModuleChanged):
        _print_module(console, event)
    elif isinstance(event, Stopped):
        console.print(f"stopped: {event.reason}", markup=False)


def _print_module(console: Console, event: ModuleChanged) -> None:
    style = _STYLES.get(event.status, "dim")
    console.print(f"[{style}]{event.status:8}[/] {event.module}", end="")
    console.print(f"  {event.description}" if event.description else "", markup=False)
    if event.status in ("failed", "backoff") and event.log:
        console.print(f"         log: {event.log}", markup=False)
