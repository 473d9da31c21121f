"""A trusted application in the real emulator, for programs and tests that are not asynchronous.

```
with EmulatedApp.of_project(Path("counter"), keys) as app:
    app.call("add", {"value": 2})
    app.results[0].payload
    app.restart()                     # a new instance, which finds what was put into trusted storage
```
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from edgeclave.develop.device import Answer, Device, Result, RunningApp
from edgeclave.develop.project import Project
from edgeclave.errors import EdgeclaveError

INTERNAL = 500
SECONDS_TO_END = 5.0
_Value = TypeVar("_Value")


class CallFailure(EdgeclaveError):  # noqa: N818 - the field's word
    """The trusted application, or the enclave for it, answered with a failure; nothing was committed."""

    def __init__(self, method: str, status: int, message: str) -> None:
        super().__init__(
            "trusted-app-failure",
            f"method {method} failed with {status}: {message}",
            advice="its log tells more" if status == INTERNAL else "",
        )
        self.status = status
        self.message = message


class EmulatedApp:
    """Started by `with`, stopped at its end. The enclave is served by a thread; methods here wait for it.

    Args:
        package: a signed package.
        device: where the emulated device keeps its keys, compiled code and state.
        tell: told what takes long or was made.
    """

    def __init__(self, package: Path, device: Device, tell: Callable[[str], None] | None = None) -> None:
        self.results: list[Result] = []
        """What was emitted since the start, in order, opened by its reader."""
        self._package = package
        self._device = device
        self._tell = tell or (lambda _: None)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="edgeclave-emulator", daemon=True)
        self._running: contextlib.AbstractAsyncContextManager[RunningApp] | None = None
        self._app: RunningApp | None = None
        self._starting: asyncio.Task[Any] | None = None

    @classmethod
    def of_project(cls, folder: Path, keys: Path, *, state: Path | None = None) -> Self:
        """Of a project's folder: built and signed with the development key where it must be.

        Args:
            state: the file that keeps the state; the one of `ta run` if None.

        Raises:
            EdgeclaveError: what the project is refused for.
        """
        project = Project.at(folder)
        package = project.development_package(keys, lambda _: None)
        kept = state or project.run_folder / "slots" / f"{project.name}.state"
        return cls(package, Device(project.run_folder, kept, keys))

    def __enter__(self) -> Self:
        """Raises what `Device.run` raises."""
        try:
            self._thread.start()
            self._wait(self._start())
        except BaseException:
            self._end_thread()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._wait(self._stop())
        finally:
            self._end_thread()

    @property
    def running(self) -> RunningApp:
        """What runs: its package and its verified evidence."""
        assert self._app is not None, "enter it first"
        return self._app

    def call(self, method: str, payload: Any = None) -> Any:
        """Calls a method with anything JSON can hold and returns the decoded reply.

        Raises:
            CallFailure: the method's own failure, or the enclave's: 404 unknown method, 504 too slow, ...
        """
        answer = self.call_text(method, json.dumps(payload))
        if answer.reply is None:
            raise CallFailure(method, answer.status, answer.message)
        return json.loads(answer.reply)

    def call_text(self, method: str, payload: str) -> Answer:
        """Calls a method with JSON text; a failure is an answer too.

        Raises:
            EnclaveError: `enclave-ended`.
        """
        answer = self._wait(self.running.call(method, payload))
        self.results += answer.results
        return answer

    def restart(self) -> None:
        """Stops this instance and starts the next one of the same application, from the stored state."""
        self._wait(self._stop())
        self._wait(self._start())

    async def _start(self) -> None:
        self._starting = asyncio.current_task()
        self._running = self._device.run(self._package, self._tell)
        self._app = await self._running.__aenter__()

    async def _stop(self) -> None:
        running, self._running, self._app = self._running, None, None
        if running is not None:
            await running.__aexit__(None, None, None)

    async def _give_up(self) -> None:
        """Ends what an interruption left: a start that goes on because its caller was gone before it could cancel it,
        one that had just ended well, and whatever is still ending an enclave."""
        starting = self._starting
        if starting is not None:
            if not starting.done() and not starting.cancelling():
                starting.cancel()
            await asyncio.wait({starting}, timeout=SECONDS_TO_END)
            if self._app is not None:
                await self._stop()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=SECONDS_TO_END)

    def _wait(self, work: Coroutine[Any, Any, _Value]) -> _Value:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _end_thread(self) -> None:
        self._wait(self._give_up())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
