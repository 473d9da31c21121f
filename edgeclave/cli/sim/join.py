"""How programs of yours join the simulator: `env` for a module, `connection-string` for a service."""

from __future__ import annotations

import asyncio
import json
import shlex
from enum import StrEnum
from typing import Annotated

import typer

from edgeclave.cli.sim.options import DEFAULT_STATE, Json, State
from edgeclave.simulator.join import connection_of, environment_of


class Service(StrEnum):
    """What a connection string is for."""

    SERVICE = "service"
    EVENTHUB = "eventhub"
    PROVISIONING = "provisioning"
    DEVICE = "device"


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


def connection_string_command(
    service: Annotated[
        Service,
        typer.Argument(
            help="service: azure-iot-hub; eventhub: azure-eventhub; provisioning: the enrolments; device: the edge"
            " device's own, for iotedgehubdev."
        ),
    ],
    state: State = DEFAULT_STATE,
    policy: Annotated[str, typer.Option("--policy", help="A shared access policy with fewer rights.")] = "",
    as_json: Json = False,
) -> None:
    """Print the connection string for a service SDK. It is a secret of this simulator.

    The SDKs must trust its CA: azure-iot-hub by REQUESTS_CA_BUNDLE, azure-eventhub by connection_verify. Users of the
    device's own also need https_proxy, which `edgeclave sim env` prints.

    Example: edgeclave sim connection-string eventhub --json
    """
    text, ca_file, device_id = asyncio.run(connection_of(state, service.value, policy))
    if as_json:
        typer.echo(json.dumps({"connectionString": text, "caFile": ca_file, "deviceId": device_id}, indent=2))
    else:
        typer.echo(text)
