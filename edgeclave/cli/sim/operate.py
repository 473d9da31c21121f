"""`edgeclave sim twin` and `edgeclave sim method`: what an operator does, by the unmodified azure-iot-hub client."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeclave.cli.sim.options import DEFAULT_STATE, Json, State, not_empty, read_json_argument
from edgeclave.errors import ConfigurationError
from edgeclave.simulator.connection_strings import connection_string
from edgeclave.simulator.control import not_running
from edgeclave.simulator.runtime_file import Runtime, read_runtime
from edgeclave.simulator.service_client import GetTwin, InvokeMethod, Order, PatchTwin, carry_out

METHOD_FAILED = 3

twin = typer.Typer(help="Twins, as the service sees them.")
Target = Annotated[str, typer.Argument(help="The module, or the device's id (edge01) for its own twin.")]


@twin.command("get")
def get(target: Target, state: State = DEFAULT_STATE, as_json: Json = False) -> None:
    """Print a twin.

    Example: edgeclave sim twin get ta_runner
    """
    runtime = _runtime(state)
    document = _carry_out(runtime, GetTwin(*_names(runtime, target)))
    typer.echo(json.dumps(document if as_json else _short(document), indent=2))


@twin.command("set")
def set_(
    target: Target,
    patch: Annotated[str, typer.Argument(help="JSON of desired properties, null removes; @FILE; - reads stdin.")],
    tags: Annotated[bool, typer.Option("--tags", help="Set tags instead of desired properties.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace everything instead of merging.")] = False,
    state: State = DEFAULT_STATE,
    as_json: Json = False,
) -> None:
    """Change a twin and print it.

    Example: edgeclave sim twin set sample_analytics '{"source": {"kind": "vitals"}}'
    """
    runtime = _runtime(state)
    value = read_json_argument(patch, "PATCH")
    if not isinstance(value, dict):
        advice = "name the properties: '{\"interval\": 5}'"
        raise ConfigurationError("bad-patch", "must be a JSON object", where="PATCH", advice=advice)
    order = PatchTwin(
        *_names(runtime, target), desired=None if tags else value, tags=value if tags else None, replace=replace
    )
    document = _carry_out(runtime, order)
    typer.echo(json.dumps(document if as_json else _short(document), indent=2))


def method(
    module: Annotated[str, typer.Argument(help="The module to call.")],
    name: Annotated[str, typer.Argument(help="The method's name.")],
    payload: Annotated[str, typer.Argument(help="JSON; @FILE; - reads stdin.")] = "null",
    response_seconds: Annotated[int, typer.Option("--timeout", min=5, max=300, help="For the answer, seconds.")] = 30,
    connect_seconds: Annotated[int, typer.Option("--connect-timeout", min=0, max=300, help="To wait for it.")] = 0,
    state: State = DEFAULT_STATE,
    as_json: Json = False,
) -> None:
    """Call a direct method and print the payload of its answer.

    Exit codes: 0 it answered with a status below 300; 3 with another one; 1 no answer.

    Example: edgeclave sim method '$edgeAgent' RestartModule '{"schemaVersion": "1.0", "id": "ta_runner"}'
    """
    runtime = _runtime(state)
    order = InvokeMethod(
        runtime.settings.device_id,
        not_empty(module, "MODULE"),
        not_empty(name, "NAME"),
        read_json_argument(payload, "PAYLOAD"),
        response_seconds,
        connect_seconds,
    )
    answer = _carry_out(runtime, order)
    typer.echo(json.dumps(answer if as_json else answer["payload"], indent=2))
    if answer["status"] >= 300:
        if not as_json:
            typer.echo(f"status {answer['status']}", err=True)
        raise typer.Exit(METHOD_FAILED)


def _runtime(state: Path) -> Runtime:
    runtime = read_runtime(state)
    if runtime is None:
        raise not_running(state)
    return runtime


def _carry_out(runtime: Runtime, order: Order) -> Any:
    text = connection_string(runtime.settings, "service")
    return asyncio.run(carry_out(order, connection_string=text, ca_file=runtime.ca_file))


def _names(runtime: Runtime, target: str) -> tuple[str, str]:
    device = runtime.settings.device_id
    return device, "" if target == device else not_empty(target, "TARGET")


def _short(document: dict[str, Any]) -> dict[str, Any]:
    """What people look for: tags, desired and reported, without the hub's bookkeeping."""
    properties = {
        side: {name: value for name, value in (section or {}).items() if name != "$metadata"}
        for side, section in document.get("properties", {}).items()
    }
    tags = document.get("tags")
    return {**({"tags": tags} if tags else {}), **properties}
