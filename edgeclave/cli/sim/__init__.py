"""`edgeclave sim`: the local simulator of IoT Hub and IoT Edge, one file per group of commands."""

from __future__ import annotations

import typer

from edgeclave.cli.sim import by_hand, join, logs, messages, operate, prepare, status, up

app = typer.Typer(help="The local simulator: IoT Hub and IoT Edge for unmodified Azure SDKs.")
app.command("prepare")(prepare.prepare_command)
app.command("up")(up.up_command)
app.command("status")(status.status_command)
app.command("offline")(status.offline)
app.command("logs")(logs.logs)
app.add_typer(operate.twin, name="twin", no_args_is_help=True)
app.command("method")(operate.method)
app.command("monitor")(messages.monitor)
app.command("send")(messages.send)
app.command("take-over")(by_hand.take_over)
app.command("give-back")(by_hand.give_back)
app.command("env")(join.env)
app.command("connection-string")(join.connection_string_command)
