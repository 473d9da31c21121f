"""How other processes join a simulator: a module's environment, a service's connection string, running or not."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Literal

from edgeclave.errors import ConfigurationError
from edgeclave.simulator.connection_strings import Kind, connection_string, device_connection_string
from edgeclave.simulator.runtime_file import Runtime, read_runtime
from edgeclave.simulator.service_client import EnsureModule, carry_out
from edgeclave.simulator.settings import with_usable_ports
from edgeclave.simulator.state import SimulatorState, is_running, module_environment

START_SECONDS = 10  # a simulator that has just been started tells where it is within this time
_POLL_SECONDS = 0.1


async def environment_of(directory: Path, module_id: str) -> dict[str, str]:
    """The environment of a module, its identity made if missing; through the hub while the simulator runs.

    Raises:
        ConfigurationError: `refused-by-hub`, or what is wrong with the state.
        HubError: the identity cannot be made.
    """
    if not module_id:
        raise ConfigurationError(
            "no-module-id", "the module's id is empty", where="MODULE_ID", advice="name the module"
        )
    async with _joined(directory) as joined:
        if isinstance(joined, SimulatorState):
            settings = with_usable_ports(joined.store, joined.settings)
            identity = joined.module(module_id)
            generation_id, address = identity.generation_id, identity.address
        else:
            settings = joined.settings
            found = _read_identity(directory, settings.device_id, module_id)
            if found is None:
                await carry_out(
                    EnsureModule(settings.device_id, module_id),
                    connection_string=connection_string(settings, "service"),
                    ca_file=joined.ca_file,
                )
                found = _read_identity(directory, settings.device_id, module_id)
            if found is None:
                raise ConfigurationError("no-such-module", f"{module_id} was deleted meanwhile", where=str(directory))
            generation_id, address = found
    return module_environment(directory, settings, module_id=module_id, generation_id=generation_id, address=address)


async def connection_of(directory: Path, kind: Kind | Literal["device"], policy: str = "") -> tuple[str, str, str]:
    """(connection string, CA file, device id); `device` is the edge device's own.

    Raises:
        HubError: there is no such policy.
        ConfigurationError: `no-policy`, or what is wrong with the state.
    """
    if kind == "device" and policy:
        raise ConfigurationError(
            "no-policy", "a device has a key of its own and no policy", where="--policy", advice="leave it out"
        )
    async with _joined(directory) as joined:
        if isinstance(joined, SimulatorState):
            settings, ca_file = with_usable_ports(joined.store, joined.settings), str(joined.pki.ca_file)
        else:
            settings, ca_file = joined.settings, joined.ca_file
        if kind == "device":
            text = device_connection_string(settings, _read_key(directory, settings.device_id))
        else:
            text = connection_string(settings, kind, policy)
        return text, ca_file, settings.device_id


@asynccontextmanager
async def _joined(directory: Path) -> AsyncIterator[Runtime | SimulatorState]:
    """Where the running simulator is, or the state itself, locked, when none runs."""
    state = await _runtime_or_state(directory)
    try:
        yield state
    finally:
        if isinstance(state, SimulatorState):
            state.close()


async def _runtime_or_state(directory: Path) -> Runtime | SimulatorState:
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    while True:
        if (runtime := read_runtime(directory)) is not None:
            return runtime
        late = asyncio.get_running_loop().time() > deadline
        if late or not is_running(directory):
            try:
                return SimulatorState(directory)
            except ConfigurationError as error:  # another command was faster; it will not take long
                if late or error.code != "simulator-running":
                    raise
        await asyncio.sleep(_POLL_SECONDS)


def _read_identity(directory: Path, device_id: str, module_id: str) -> tuple[str, str] | None:
    """Generation id and address, read beside the running simulator."""
    row = _read_columns(directory, "generation_id, address", device_id, module_id)
    return (str(row[0]), str(row[1])) if row else None


def _read_key(directory: Path, device_id: str) -> str:
    row = _read_columns(directory, "primary_key", device_id, "")
    if row is None:
        raise ConfigurationError("no-such-device", f"there is no device {device_id}", where=str(directory))
    return str(row[0])


def _read_columns(directory: Path, columns: str, device_id: str, module_id: str) -> tuple[object, ...] | None:
    database = f"{(directory.absolute() / 'state.sqlite').as_uri()}?mode=ro"
    with closing(sqlite3.connect(database, uri=True)) as connection:
        row: tuple[object, ...] | None = connection.execute(
            f"SELECT {columns} FROM identities WHERE device_id = ? AND module_id = ?",  # noqa: S608 - written above
            (device_id, module_id),
        ).fetchone()
    return row
