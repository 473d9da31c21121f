"""`edgeclave sim up`: the simulator with the modules of a deployment."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from edgeclave.cli.sim.options import DEFAULT_STATE, Json, State
from edgeclave.errors import ConfigurationError
from edgeclave.simulator.state import start_over
from edgeclave.simulator.up import Applied, Event, ModuleChanged, Note, Progress, Ready, Started, Stopped, up

DEFAULT_TEMPLATE = Path("deployment.template.json")
_STYLES = {"running": "green", "failed": "red", "backoff": "yellow"}


def up_command(
    template: Annotated[Path, typer.Argument(help="The deployment template.")] = DEFAULT_TEMPLATE,
    state: State = DEFAULT_STATE,
    seconds: Annotated[float | None, typer.Option("--for", min=0, help="Stop after this many seconds.")] = None,
    containers: Annotated[
        bool, typer.Option("--containers", help="Run the modules' images on the Docker engine, as a device does.")
    ] = False,
    no_deploy: Annotated[
        bool, typer.Option("--no-deploy", help="The device runs what it was given last, at first nothing.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the state of earlier runs first.")] = False,
    if_needed: Annotated[bool, typer.Option("--if-needed", help="Be content when one runs already.")] = False,
    as_json: Json = False,
) -> None:
    """Start the simulator, apply the deployment, run its modules, until Ctrl-C or SIGTERM.

    Modules run as processes, from their source, or with --containers from their images by their createOptions. With
    --no-deploy the template only says which images are made from which modules: `edgeclave deploy` does the rest.

    Example: edgeclave sim up --for 60
    """
    console = Console(highlight=False, emoji=False, soft_wrap=True)

    def show(event: Event) -> None:
        if as_json:
            typer.echo(msgspec.json.encode(event))
        else:
            _print(console, event)

    if fresh:
        start_over(state)
    try:
        asyncio.run(up(template, state, seconds, show, containers=containers, deploying=not no_deploy))
    except ConfigurationError as error:
        if not if_needed or error.code != "simulator-running":
            raise
        typer.echo(json.dumps({"event": "running-already"}) if as_json else f"ready: one runs already ({state})")


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
    elif isinstance(event, Progress):
        console.print(f"[dim]{'...':8}[/] {event.module}", end="")
        console.print(f"  {event.text}", markup=False, style="dim")
    elif isinstance(event, ModuleChanged):
        _print_module(console, event)
    elif isinstance(event, Ready):
        console.print(f"ready: {event.modules} modules run; Ctrl-C ends it")
    elif isinstance(event, Stopped):
        console.print(f"stopped: {event.reason}", markup=False)


def _print_module(console: Console, event: ModuleChanged) -> None:
    style = _STYLES.get(event.status, "dim")
    console.print(f"[{style}]{event.status:8}[/] {event.module}", end="")
    console.print(f"  {event.description}" if event.description else "", markup=False)
    if event.status in ("failed", "backoff") and event.log:
        console.print(f"         log: {event.log}", markup=False)
