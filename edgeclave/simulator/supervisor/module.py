"""One module: started, watched, restarted with back-off, stopped, whatever its program is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from edgeclave.edge.backoff import Backoff
from edgeclave.errors import ConfigurationError, EdgeclaveError
from edgeclave.simulator.supervisor.log_file import append, last_line, trim
from edgeclave.simulator.supervisor.program import Ended, Program
from edgeclave.simulator.supervisor.specification import ModuleSpecification

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1, 60
HEALTHY_AFTER_SECONDS = 60  # running this long resets the back-off
LOG_CHECK_SECONDS = 30
NOT_STARTED = 1  # the exit code of what could not be started

NEVER = "0001-01-01T00:00:00Z"  # edgeAgent's word for what has not happened
RuntimeStatus = Literal["unknown", "running", "backoff", "stopped", "failed"]


class ModuleState(msgspec.Struct, rename="camel"):
    """As edgeAgent reports it. Times are ISO 8601, UTC; `NEVER` when it has not happened."""

    runtime_status: RuntimeStatus = "unknown"
    status_description: str = ""
    exit_code: int = 0
    restart_count: int = 0
    last_start_time_utc: str = NEVER
    last_restart_time_utc: str = NEVER
    last_exit_time_utc: str = NEVER


class Module:
    """Runs one module until `stop`.

    Args:
        specification: what the deployment asks for.
        program: what is started and watched; `log_file` gets its output.
        changed: called after every change of `state`.
    """

    def __init__(
        self, specification: ModuleSpecification, program: Program, *, log_file: Path, changed: Callable[[], None]
    ) -> None:
        self.specification = specification
        self.program = program
        self.state = ModuleState()
        self.log_file = log_file
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self._launched = asyncio.Event()

    async def launched(self) -> None:
        """Returns once its first run began, or could not."""
        await self._launched.wait()

    def start(self) -> None:
        self._launched.clear()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        task, self._task = self._task, None
        await self.program.stop()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._set("stopped", "stopped by the simulator")

    async def _run(self) -> None:
        backoff = Backoff(first_seconds=FIRST_WAIT_SECONDS, longest_seconds=LONGEST_WAIT_SECONDS, jitter=False)
        while True:
            started = time.monotonic()
            try:
                ended = await self._run_once()
            except ConfigurationError as error:
                append(self.log_file, f"not started: {error}")
                self.state.exit_code = NOT_STARTED
                self._set("failed", f"not started: {error}")
                return
            except EdgeclaveError as error:
                append(self.log_file, str(error))
                ended = Ended(NOT_STARTED, str(error))
            if self._task is None:  # stop() is under way and says the rest
                return
            self.state.exit_code = ended.exit_code
            if not self._restarts(ended.exit_code):
                self._set("failed" if ended.exit_code else "stopped", ended.reason)
                return
            if time.monotonic() - started > HEALTHY_AFTER_SECONDS:
                backoff.reset()
            wait = backoff.next_seconds()
            self._set("backoff", f"{ended.reason}; starting again in {wait:g} s")
            await asyncio.sleep(wait)
            self.state.restart_count += 1
            self.state.last_restart_time_utc = _now()

    async def _run_once(self) -> Ended:
        trim(self.log_file)
        try:
            await self.program.start()
        finally:
            self._launched.set()
        self.state.last_start_time_utc = _now()
        self._set("running", self.program.shown)
        waiting = asyncio.ensure_future(self.program.wait())
        try:
            while not (await asyncio.wait([waiting], timeout=LOG_CHECK_SECONDS))[0]:
                trim(self.log_file)
        finally:
            waiting.cancel()
        ended = waiting.result()
        self.state.last_exit_time_utc = _now()
        last = last_line(self.log_file)
        return Ended(ended.exit_code, f"{ended.reason}: {last}") if last else ended

    def _restarts(self, code: int) -> bool:
        policy = self.specification.restart_policy
        return policy == "always" or (policy in ("on-failure", "on-unhealthy") and code != 0)

    def _set(self, status: RuntimeStatus, description: str) -> None:
        self.state.runtime_status = status
        self.state.status_description = description
        self._changed()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
