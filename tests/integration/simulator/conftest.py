"""A running simulator, and unmodified SDK clients of it."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device.aio import IoTHubModuleClient
from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager  # type: ignore[import-untyped]

from edgeclave.simulator import SimulatorThread

Connect = Callable[..., Awaitable[Any]]


@pytest.fixture
def simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatorThread]:
    with SimulatorThread(tmp_path / "sim") as running:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", running.ca_file)
        yield running


@pytest.fixture
async def connect(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connect]:
    """Connects an azure-iot-device module client with the environment of a module; shuts it down at the end.

    `on_message` is set before it connects: the SDK acknowledges and drops inputs that come in before it has a handler.
    """
    clients: list[Any] = []

    async def connect_module(environment: dict[str, str], on_message: Any = None, **options: Any) -> Any:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        client = await asyncio.to_thread(IoTHubModuleClient.create_from_edge_environment, **options)
        clients.append(client)
        if on_message is not None:
            client.on_message_received = on_message
        await client.connect()
        return client

    yield connect_module
    await asyncio.gather(*(client.shutdown() for client in clients), return_exceptions=True)


@pytest.fixture
def registry(simulator: SimulatorThread) -> IoTHubRegistryManager:
    return IoTHubRegistryManager.from_connection_string(simulator.connection_string("service"))


@pytest.fixture
def configurations(simulator: SimulatorThread) -> IoTHubConfigurationManager:
    return IoTHubConfigurationManager.from_connection_string(simulator.connection_string("service"))


class Arrivals:
    """What SDK handlers got; they run on the SDK's own thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    async def put(self, item: Any) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def next(self, seconds: float = 5) -> Any:
        return await asyncio.wait_for(self._queue.get(), seconds)

    def empty(self) -> bool:
        return self._queue.empty()


@pytest.fixture
def arrivals() -> type[Arrivals]:
    return Arrivals


@pytest.fixture
def own_environment() -> dict[str, str]:
    """What a child process needs besides a module's environment."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
