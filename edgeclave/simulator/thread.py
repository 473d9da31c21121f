"""The simulator on a thread of its own, for programs and tests whose SDK clients live in the same process.

Some SDK calls block (making a client, setting a handler, all of azure-iot-hub); on the simulator's own event loop they
would wait for themselves.

```
with SimulatorThread(tmp_path / "sim") as sim:
    os.environ.update(sim.environment("my_module"))
    client = IoTHubModuleClient.create_from_edge_environment()
```
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Self, TypeVar

from edgeclave.simulator.connection_strings import Kind
from edgeclave.simulator.simulator import Simulator

Answer = TypeVar("Answer")


class SimulatorThread:
    """Started by `with`, stopped at its end. Every method may be called from any thread."""

    def __init__(self, state_directory: Path | str) -> None:
        self._directory = Path(state_directory)
        self._started: Future[tuple[asyncio.AbstractEventLoop, Simulator]] = Future()
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._main, name="edgeclave-simulator", daemon=True)

    def __enter__(self) -> Self:
        """Raises what `Simulator` raises when it cannot start."""
        self._thread.start()
        self._started.result()
        return self

    def __exit__(self, *_: object) -> None:
        loop, _simulator = self._started.result()
        loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def ca_file(self) -> str:
        return self._started.result()[1].ca_file

    @property
    def device_id(self) -> str:
        return self._started.result()[1].device_id

    def connection_string(self, kind: Kind) -> str:
        return self._started.result()[1].connection_string(kind)

    def environment(self, module_id: str) -> dict[str, str]:
        return self.call(lambda simulator: simulator.environment(module_id))

    def call(self, function: Callable[[Simulator], Answer]) -> Answer:
        """Runs a function of the simulator on its own thread, where alone its state may be touched."""
        loop, simulator = self._started.result()

        async def run() -> Answer:
            return function(simulator)

        return asyncio.run_coroutine_threadsafe(run(), loop).result()

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        async with Simulator.running(self._directory) as simulator:
            self._started.set_result((asyncio.get_running_loop(), simulator))
            await self._stop.wait()
