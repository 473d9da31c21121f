"""The module's connection to the hub over the unmodified IoTHubModuleClient, made to behave as a module needs it.

What the SDK does, and what this does about it:

1. Handlers run on the SDK's own loop and thread: here they are moved onto the loop that called `connect`.
2. Enabling twin patches delivers no current state: the twin is read first, patches are merged, and the twin is read
   again after a version gap and after every reconnect.
3. Sends fail at once while the hub is away: `HubOffline`, for the outbox to try again.
4. Concurrent calls go through a thread pool and may overtake each other: here the SDK runs on a thread of its own
   whose executor has one worker, so that what is sent first leaves first.
5. After some failures the SDK stops reconnecting: a watch connects again.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from azure.iot.device import Message, MethodResponse
from azure.iot.device.aio import IoTHubModuleClient

from edgeclave.edge.backoff import Backoff
from edgeclave.edge.sdk_thread import SdkThread
from edgeclave.edge.twin import DesiredProperties, PatchOutcome
from edgeclave.errors import EdgeclaveError

OPERATION_TIMEOUT_SECONDS = 30
CLOSE_TIMEOUT_SECONDS = 2.5
SDK_RETRY_SECONDS = 3
WATCH_SECONDS = 10
"""How long the SDK may take to reconnect by itself before it is told to."""

DesiredCallback = Callable[[dict[str, Any]], Awaitable[None] | None]
MethodHandler = Callable[[Any], Awaitable[tuple[int, Any]]]
InputHandler = Callable[["InputMessage"], Awaitable[None] | None]

_log = structlog.get_logger(__name__)


class HubOffline(EdgeclaveError):  # noqa: N818 - a state, not a mistake
    """The hub cannot be reached now; try again later. Nothing is known to have been delivered."""

    def __init__(self, what: str) -> None:
        super().__init__("hub-offline", what, advice="it is tried again when the hub is back")


@dataclass(frozen=True)
class InputMessage:
    """A message routed to one of this module's inputs."""

    input_name: str
    body: bytes
    message_id: str | None
    content_type: str | None
    properties: dict[str, str]


class HubConnection:
    """One module's connection. Register handlers, then `connect`.

    >>> hub = HubConnection()
    >>> async def ping(payload):
    ...     return 200, {"echo": payload}
    >>> hub.on_method("ping", ping)
    """

    def __init__(self) -> None:
        self._sdk = SdkThread()
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._desired = DesiredProperties()
        self._reported: dict[str, Any] = {}
        self._desired_read = asyncio.Event()
        self._desired_callbacks: list[DesiredCallback] = []
        self._methods: dict[str, MethodHandler] = {}
        self._inputs: dict[str, InputHandler] = {}
        self._changed = asyncio.Event()
        self._reread = asyncio.Event()
        self._connection_changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._input_queue: asyncio.Queue[InputMessage] = asyncio.Queue()

    @property
    def connected(self) -> bool:
        """Whether the hub is connected now."""
        return self._client is not None and bool(self._client.connected)

    def on_desired(self, callback: DesiredCallback) -> None:
        """Calls back with the full desired properties: once they are known, and after each change, never twice at
        once. Changes that come while a callback runs are handed over together afterwards."""
        self._desired_callbacks.append(callback)
        if self._desired_read.is_set():
            self._changed.set()

    def on_method(self, name: str, handler: MethodHandler) -> None:
        """Answers a direct method: `handler(payload)` returns (status, payload)."""
        self._methods[name] = handler

    def on_input(self, name: str, handler: InputHandler) -> None:
        """Takes messages of an input, one at a time, in order. Register before `connect`.

        The SDK acknowledges a message to the hub as soon as it has it in memory, before any handler runs.
        """
        self._inputs[name] = handler

    async def connect(self) -> None:
        """Connects and reads the twin, trying for ever with back-off until the hub is there."""
        self._loop = asyncio.get_running_loop()
        backoff = Backoff(first_seconds=0.5, longest_seconds=30)
        while True:
            try:
                await self._connect_once()
                break
            except Exception as error:
                wait = backoff.next_seconds()
                _log.warning("hub not reachable", reason=_reason(error), retry_seconds=round(wait, 1))
                await asyncio.sleep(wait)
        for task in (self._hand_over_desired(), self._keep_twin_current(), self._keep_connected()):
            self._spawn(task)
        if self._inputs:
            self._spawn(self._hand_over_inputs())
        _log.info("hub connected", twin_version=self._desired.version)

    async def twin(self) -> dict[str, Any]:
        """The current desired properties, without `$` members; waits for the first read."""
        await self._desired_read.wait()
        return self._desired.value

    async def reported(self) -> dict[str, Any]:
        """The reported properties as the hub had them at the last read; waits for the first."""
        await self._desired_read.wait()
        return self._reported

    async def report(self, reported: Mapping[str, Any]) -> None:
        """Patches the reported properties; None removes a member.

        Raises:
            HubOffline: nothing is known to have been taken.
        """
        await self._operation(self._online().patch_twin_reported_properties(dict(reported)))

    async def send(self, output: str, body: bytes, content_type: str, properties: Mapping[str, str]) -> None:
        """Sends to a module output and returns when the hub has acknowledged.

        Raises:
            HubOffline: not known to have been delivered; send it again.
        """
        message: Any = Message(body, content_type=content_type)  # type: ignore[no-untyped-call]
        message.custom_properties.update(properties)
        # No timeout: what the SDK has taken it delivers after a reconnect, and giving up would double it.
        await self._operation(self._online().send_message_to_output(message, output), timeout_seconds=None)

    async def close(self) -> None:
        """Disconnects, within CLOSE_TIMEOUT_SECONDS. The object cannot be used again."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await self._sdk.run(client.shutdown(), timeout_seconds=CLOSE_TIMEOUT_SECONDS)
        self._sdk.stop()

    async def _connect_once(self) -> None:
        if self._client is None:
            client: Any = await self._sdk.call(
                lambda: IoTHubModuleClient.create_from_edge_environment(
                    connection_retry_interval=SDK_RETRY_SECONDS, ensure_desired_properties=False
                )
            )
            client.on_connection_state_change = self._sdk_connection_changed
            client.on_background_exception = self._sdk_background_exception
            self._client = client
        module_client = self._client
        await self._sdk.run(module_client.connect(), timeout_seconds=OPERATION_TIMEOUT_SECONDS)
        handlers = {
            "on_method_request_received": self._sdk_method,
            "on_twin_desired_properties_patch_received": self._sdk_patch,
        }
        if self._inputs:
            handlers["on_message_received"] = self._sdk_input
        for name, handler in handlers.items():
            await self._sdk.call(partial(setattr, module_client, name, handler))
        await self._read_twin()

    def _online(self) -> Any:
        if not self.connected:
            raise HubOffline("the hub is not connected")
        return self._client

    async def _operation(self, call: Any, *, timeout_seconds: float | None = OPERATION_TIMEOUT_SECONDS) -> Any:
        try:
            return await self._sdk.run(call, timeout_seconds=timeout_seconds)
        except Exception as error:
            raise HubOffline(f"the hub did not take it: {_reason(error)}") from error

    async def _read_twin(self) -> None:
        twin = await self._operation(self._online().get_twin())
        before = (self._desired.version, self._desired.value)
        self._desired.replace(twin.get("desired"))
        self._reported = {name: value for name, value in twin.get("reported", {}).items() if not name.startswith("$")}
        if not self._desired_read.is_set() or before != (self._desired.version, self._desired.value):
            self._desired_read.set()
            self._changed.set()

    async def _keep_twin_current(self) -> None:
        while True:
            await self._reread.wait()
            self._reread.clear()
            try:
                await self._read_twin()
            except HubOffline:
                await asyncio.sleep(1)
                self._reread.set()

    async def _keep_connected(self) -> None:
        was_connected = True
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._connection_changed.wait()
                self._connection_changed.clear()
                if self.connected != was_connected:
                    was_connected = self.connected
                    _log.info("hub connection changed", connected=was_connected)
                if was_connected:
                    self._reread.set()
                continue
            if not self.connected:
                with contextlib.suppress(Exception):
                    await self._sdk.run(self._client.connect(), timeout_seconds=OPERATION_TIMEOUT_SECONDS)

    async def _hand_over_desired(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            for callback in self._desired_callbacks:
                await _guarded(callback, self._desired.value, "desired properties")

    async def _hand_over_inputs(self) -> None:
        while True:
            message = await self._input_queue.get()
            handler = self._inputs.get(message.input_name)
            if handler is None:
                _log.warning("message on an input nobody reads", input=message.input_name[:80])
            else:
                await _guarded(handler, message, f"input {message.input_name}")

    async def _answer(self, request: Any) -> None:
        status, payload = await self._method_outcome(request)
        response = MethodResponse.create_from_method_request(request, status, payload)
        try:
            await self._operation(self._online().send_method_response(response))
        except HubOffline as error:
            _log.warning("direct method not answered", method=request.name[:80], reason=error.what)

    async def _method_outcome(self, request: Any) -> tuple[int, Any]:
        handler = self._methods.get(request.name)
        if handler is None:
            known = ", ".join(sorted(self._methods)) or "none"
            return 404, _problem("no-such-method", "this module has no such direct method", f"it has: {known}")
        try:
            return await handler(request.payload)
        except EdgeclaveError as error:
            return 400, _problem(error.code, error.what, error.advice)
        except Exception:
            _log.exception("direct method failed", method=request.name)
            return 500, _problem("internal-error", "the module failed on this call", "see the module's log")

    def _patched(self, patch: object) -> None:
        outcome = self._desired.apply(patch)
        if outcome is PatchOutcome.MERGED:
            self._changed.set()
        elif outcome is PatchOutcome.GAP:
            self._reread.set()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # The SDK calls these on its own thread, in order because they are coroutines that never wait.

    async def _sdk_patch(self, patch: object) -> None:
        self._on_loop(self._patched, patch)

    async def _sdk_method(self, request: object) -> None:
        self._on_loop(lambda: self._spawn(self._answer(request)))

    async def _sdk_input(self, message: Any) -> None:
        body = message.data if isinstance(message.data, bytes) else str(message.data).encode()
        properties = {str(name): str(value) for name, value in message.custom_properties.items()}
        taken = InputMessage(message.input_name, body, message.message_id, message.content_type, properties)
        self._on_loop(self._input_queue.put_nowait, taken)

    async def _sdk_connection_changed(self) -> None:
        self._on_loop(self._connection_changed.set)

    async def _sdk_background_exception(self, error: Exception) -> None:
        _log.debug("hub client", reason=_reason(error))

    def _on_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended: the module is stopping
            self._loop.call_soon_threadsafe(function, *arguments)


async def _guarded(callback: Callable[[Any], Awaitable[None] | None], argument: Any, what: str) -> None:
    try:
        outcome = callback(argument)
        if inspect.isawaitable(outcome):
            await outcome
    except EdgeclaveError as error:
        _log.error("handler refused", handler=what, code=error.code, reason=str(error))
    except Exception:
        _log.exception("handler failed", handler=what)


def _problem(code: str, what: str, advice: str) -> dict[str, Any]:
    return {"error": {"code": code, "what": what, "advice": advice}}


def _reason(error: BaseException) -> str:
    """The SDK's message with that of its cause, on one line."""
    cause = f" ({type(error.__cause__).__name__}: {error.__cause__})" if error.__cause__ else ""
    return " ".join(f"{type(error).__name__}: {error}{cause}".split())[:300]
