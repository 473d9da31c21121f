"""`edgeclave sim monitor` and `edgeclave sim send`: messages out of the device, and into a module's input."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from edgeclave.cli.sim.options import DEFAULT_STATE, State, not_empty, read_argument
from edgeclave.errors import ConfigurationError
from edgeclave.simulator.control import InputOrder, ask, not_running
from edgeclave.simulator.join import connection_of
from edgeclave.simulator.state import is_running

_ORIGIN = "iothub-connection-device-id", "iothub-connection-module-id"


class Start(StrEnum):
    EARLIEST = "earliest"
    LATEST = "latest"


def monitor(
    start: Annotated[Start, typer.Option("--from", help="Where to begin.")] = Start.LATEST,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many messages.")] = None,
    seconds: Annotated[float | None, typer.Option("--for", min=0, help="End after so many seconds.")] = None,
    state: State = DEFAULT_STATE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print the messages that arrive at IoT Hub, as a reader in the cloud gets them, until Ctrl-C.

    Example: edgeclave sim monitor --from earliest --count 10 --json
    """
    if not is_running(state):
        raise not_running(state)
    text, ca_file, _device = asyncio.run(connection_of(state, "eventhub"))
    console = Console(highlight=False, emoji=False, soft_wrap=True)

    def show(event: dict[str, Any]) -> None:
        if as_json:
            print(json.dumps(event), flush=True)
        else:
            _print(console, event)

    asyncio.run(_read(text, ca_file, start, count, seconds, show))


def send(
    module: Annotated[str, typer.Argument(help="The module to send to.")],
    input_name: Annotated[str, typer.Argument(help="The name of its input.")],
    body: Annotated[str, typer.Argument(help="The message; @FILE; - reads stdin.")],
    properties: Annotated[
        list[str] | None, typer.Option("--property", "-p", metavar="NAME=VALUE", help="An application property.")
    ] = None,
    content_type: Annotated[str, typer.Option(help="Said to be the body's type.")] = "application/json",
    state: State = DEFAULT_STATE,
) -> None:
    """Put a message into a module's input, as if a route had led it there.

    Example: edgeclave sim send sample_analytics input1 '{"machine": {"temperature": 98.5}}' -p unit=C
    """
    pairs = {}
    for each in properties or []:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise ConfigurationError(
                "bad-property", f"{each!r} is not NAME=VALUE", where="--property", advice="write it as -p unit=C"
            )
        pairs[name] = value
    order = InputOrder(
        not_empty(module, "MODULE"),
        input_name,
        read_argument(body, "BODY"),
        pairs,
        {"$.ct": content_type, "$.ce": "utf-8"},
    )
    asyncio.run(ask(state, "POST", "/inputs", order))


async def _read(text: str, ca_file: str, start: Start, count: int | None, seconds: float | None, show: Any) -> None:
    from azure.eventhub.aio import EventHubConsumerClient

    from edgeclave.cloud.ending import end

    client = EventHubConsumerClient.from_connection_string(
        text, consumer_group="$Default", connection_verify=str(Path(ca_file))
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    seen = 0

    async def on_event(_context: object, event: Any) -> None:
        nonlocal seen
        if count is None or seen < count:
            seen += 1
            show(_decode(event))
        if count is not None and seen >= count:
            stop.set()

    position = "-1" if start is Start.EARLIEST else "@latest"
    async with client:
        reading = asyncio.create_task(client.receive(on_event, starting_position=position))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({reading, stopped}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        await end(reading)
        if not reading.cancelled() and (error := reading.exception()):
            raise ConfigurationError(
                "reading-failed",
                f"the hub cannot be read: {error}",
                advice="see `edgeclave sim status`, and `edgeclave sim logs simulator`",
            ) from error


def _decode(event: Any) -> dict[str, Any]:
    """One message as people want to see it; a body that is neither JSON nor text is shown in base64."""
    raw = b"".join(event.body)
    system = {_text(name): _text(value) for name, value in event.system_properties.items()}
    decoded: dict[str, Any]
    try:
        decoded = {"body": json.loads(raw)}
    except ValueError:
        try:
            decoded = {"body": raw.decode()}
        except UnicodeDecodeError:
            decoded = {"bodyBase64": base64.b64encode(raw).decode()}
    return {
        "device": system.get(_ORIGIN[0], ""),
        "module": system.get(_ORIGIN[1], ""),
        "enqueued": event.enqueued_time.isoformat(timespec="milliseconds"),
        "sequence": event.sequence_number,
        "properties": {_text(name): _text(value) for name, value in (event.properties or {}).items()},
        "system": {name: value for name, value in system.items() if name not in _ORIGIN},
        **decoded,
    }


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _print(console: Console, event: dict[str, Any]) -> None:
    origin = "/".join(part for part in (event["device"], event["module"]) if part)
    clock = datetime.fromisoformat(event["enqueued"]).astimezone().strftime("%H:%M:%S")  # when IoT Hub had it
    console.print(f"[dim]{clock}[/] [bold]{_safe(origin)}[/] [dim]#{event['sequence']}[/]")
    if event["properties"]:
        console.print(f"  {_safe(json.dumps(event['properties']))}")
    console.print(f"  {_safe(json.dumps(event.get('body', event.get('bodyBase64'))))}")


def _safe(text: str) -> str:
    """JSON text has no control characters; brackets are not markup."""
    return text.replace("[", "\\[")
