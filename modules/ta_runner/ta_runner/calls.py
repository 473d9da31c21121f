"""Calls to one trusted application: one at a time, in order, each a transaction, each answered once.

Rules:

1. A call id that was answered gets the same answer; one that is still running is joined, not run again.
2. An answer with effects (new state, sealed results) is given only after it is stored. If it cannot be stored, the
   caller hears `not-stored` and the enclave, which has gone ahead of the store, must be ended.
3. An answer without effects is remembered in memory only, as far as it goes: running the call again changes nothing.
4. A caller that does not acknowledge its results gets no new calls at a limit; nothing it has not stored is dropped.
5. Where the platform has a counter, a call may be committed and its answer lost. It is found again by
   `ta_runner.commits` before the next call runs.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from edgeclave.edge.link import Call, CallReply
from edgeclave.edge.link.messages import decode_reply
from edgeclave.edge.store import StoreError
from edgeclave.enclave.messages import Caller, CallOutcome, CallRequest
from edgeclave.errors import EdgeclaveError
from edgeclave.platforms.base import Enclave
from ta_runner.commits import AnswerTooLargeError, Commits, call_reply
from ta_runner.delivery import Delivery
from ta_runner.metrics import RunnerMetrics
from ta_runner.store import CallKey, RunnerStore

MAX_QUEUED_CALLS = 64
MAX_UNACKNOWLEDGED_CALLS = 10_000
"""Per trusted application and caller."""
MAX_UNACKNOWLEDGED_BYTES = 128 << 20
"""Per trusted application and caller: answers with their results."""
MAX_REMEMBERED_ANSWERS = 1024
MAX_REMEMBERED_BYTES = 4 << 20
RETRY_SECONDS = 1.0
UNACKNOWLEDGED_RETRY_SECONDS = 10.0

T = TypeVar("T")


class CallRefused(EdgeclaveError):  # noqa: N818 - the call was not run, or its outcome is void
    """A call without an answer. `retry_after` in seconds: repeating it with the same id may do better."""

    def __init__(self, code: str, what: str, *, advice: str = "", retry_after: float | None = None) -> None:
        super().__init__(code, what, advice=advice)
        self.retry_after = retry_after


@dataclass
class _Pending:
    key: CallKey
    call: Call
    deadline: float
    answered: asyncio.Future[CallReply] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass
class _Work:
    run: Callable[[Enclave], Awaitable[None]]
    done: asyncio.Future[Any]


class CallQueue:
    """The calls of one slot, across restarts of its enclave."""

    def __init__(self, slot: str, store: RunnerStore, delivery: Delivery, metrics: RunnerMetrics) -> None:
        self.commits = Commits(slot, store, delivery)
        self._slot = slot
        self._store = store
        self._metrics = metrics
        self._waiting: deque[_Pending | _Work] = deque()
        self._running: dict[CallKey, _Pending] = {}
        self._remembered = _RecentAnswers()
        self._filled = asyncio.Event()
        self._closed: CallRefused | None = None
        self._finishing = False

    def open(self) -> None:
        """An enclave runs: take calls."""
        self._closed = None

    def close(self, reason: CallRefused) -> None:
        """No enclave runs: refuse new calls and those that wait."""
        self._closed = reason
        while self._waiting:
            waiting = self._waiting.popleft()
            if isinstance(waiting, _Work):
                waiting.done.set_exception(reason)
                waiting.done.exception()
            else:
                self._settle(waiting, reason)

    def __len__(self) -> int:
        """Calls that wait or run."""
        return len(self._running)

    async def call(self, call: Call) -> CallReply:
        """The answer to a call: the stored one, that of the same call under way, or a new one.

        Raises:
            CallRefused: `call-acknowledged`, `results-not-acknowledged`, `queue-full`, `deadline-exceeded`,
                `not-stored`, `enclave-ended`, `message-too-large`, or why no enclave runs.
        """
        key = CallKey(self._slot, call.caller, call.call_id)
        known = self._known_answer(key)
        if known is not None:
            return known
        pending = self._running.get(key)
        if pending is None:
            self._check_room(key)
            pending = _Pending(key, call, time.monotonic() + call.deadline_ms / 1000)
            self._running[key] = pending
            self._waiting.append(pending)
            self._filled.set()
        # A call is a transaction: it goes on when whoever asked has gone.
        return msgspec.structs.replace(await asyncio.shield(pending.answered))

    async def between_calls(self, work: Callable[[Enclave], Awaitable[T]]) -> T:
        """Runs something else on the enclave when its turn has come.

        Raises:
            CallRefused: no enclave runs. Else what `work` raises.
        """
        if self._closed is not None:
            raise self._closed.with_traceback(None)
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def run(enclave: Enclave) -> None:
            try:
                outcome = await work(enclave)
            except Exception as error:
                done.set_exception(error)
                done.exception()  # whoever asked may have gone
                if isinstance(error, StoreError):
                    raise
            else:
                done.set_result(outcome)

        self._waiting.append(_Work(run, done))
        self._filled.set()
        return await asyncio.shield(done)

    async def serve(self, enclave: Enclave) -> None:
        """Runs the waiting calls on an enclave until `finish`.

        Raises:
            EdgeclaveError: the enclave cannot go on and must be ended; the call at fault has been answered.
        """
        self._finishing = False
        while True:
            while not self._waiting:
                if self._finishing:
                    return
                self._filled.clear()
                await self._filled.wait()
            waiting = self._waiting.popleft()
            if isinstance(waiting, _Work):
                await waiting.run(enclave)
            else:
                await self._serve_one(enclave, waiting)

    def finish(self, reason: CallRefused) -> None:
        """Refuses what waits and lets `serve` return when the call under way is answered."""
        self.close(reason)
        self._finishing = True
        self._filled.set()

    async def _serve_one(self, enclave: Enclave, pending: _Pending) -> None:
        remaining_ms = int((pending.deadline - time.monotonic()) * 1000)
        if remaining_ms < 1:
            what = f"the call waited longer than its deadline of {pending.call.deadline_ms} ms"
            advice = "repeat it with the same call id, or call less often"
            self._settle(pending, CallRefused("deadline-exceeded", what, advice=advice))
            return
        began = time.monotonic()
        try:
            self.commits.under_way = (pending.key, pending.call.deliver == "upstream")
            outcome = await enclave.call(_request(pending.call, remaining_ms))
            reply = self._commit(pending, outcome)
        except StoreError as error:
            self._settle(pending, _not_stored(error))
            raise
        except CallRefused as error:
            self._settle(pending, error)
            raise
        except EdgeclaveError as error:
            what = f"the enclave ended during the call: {error.what}"
            advice = "repeat it with the same call id: it is carried out once"
            self._settle(pending, CallRefused("enclave-ended", what, advice=advice, retry_after=RETRY_SECONDS))
            raise
        except BaseException:
            what = "the enclave was stopped during the call"
            advice = "repeat it with the same call id: it is carried out once"
            self._settle(pending, CallRefused("enclave-ended", what, advice=advice, retry_after=RETRY_SECONDS))
            raise
        finally:
            self.commits.under_way = None
        self._metrics.answered(self._slot, reply.status, time.monotonic() - began)
        self._settle(pending, reply)

    def _commit(self, pending: _Pending, outcome: CallOutcome) -> CallReply:
        upstream = pending.call.deliver == "upstream"
        if outcome.state is None and not outcome.results:
            reply = call_reply(outcome, with_results=not upstream)
            self._remembered.put(pending.key, reply)
            return reply
        try:
            return self.commits.answer(pending.key, outcome, upstream=upstream)
        except AnswerTooLargeError as error:
            raise CallRefused(
                "message-too-large",
                f"the answer with its sealed results has {error}",
                advice="send fewer readings in one call; nothing of this call was committed",
            ) from None

    def _known_answer(self, key: CallKey) -> CallReply | None:
        remembered = self._remembered.get(key)
        if remembered is not None:
            return msgspec.structs.replace(remembered)
        stored = self._store.answer(key)
        if stored is None:
            return None
        if stored.answer is None:
            raise CallRefused(
                "call-acknowledged",
                "this call was answered and its results were acknowledged",
                advice="use a new call id for a new call",
            )
        reply = decode_reply(stored.answer)
        assert isinstance(reply, CallReply)
        return reply

    def _check_room(self, key: CallKey) -> None:
        if self._closed is not None:
            raise self._closed.with_traceback(None)
        if len(self._waiting) >= MAX_QUEUED_CALLS:
            raise CallRefused(
                "queue-full",
                f"{len(self._waiting)} calls to {self._slot} wait already",
                advice="call less often, or send more in one call",
                retry_after=RETRY_SECONDS,
            )
        calls, size = self._store.unacknowledged(self._slot, key.caller)
        if calls >= MAX_UNACKNOWLEDGED_CALLS or size >= MAX_UNACKNOWLEDGED_BYTES:
            raise CallRefused(
                "results-not-acknowledged",
                f"results of {calls} calls ({size} bytes) wait for this caller's acknowledgement",
                advice="acknowledge the calls whose results are stored",
                retry_after=UNACKNOWLEDGED_RETRY_SECONDS,
            )

    def _settle(self, pending: _Pending, outcome: CallReply | CallRefused) -> None:
        self._running.pop(pending.key, None)
        if isinstance(outcome, CallReply):
            pending.answered.set_result(outcome)
            return
        self._metrics.refused(self._slot, outcome.code)
        pending.answered.set_exception(outcome)
        pending.answered.exception()  # whoever asked may have gone


class _RecentAnswers:
    """Answers without effects, the newest ones, as many as fit."""

    def __init__(self) -> None:
        self._answers: OrderedDict[CallKey, CallReply] = OrderedDict()
        self._bytes = 0

    def get(self, key: CallKey) -> CallReply | None:
        return self._answers.get(key)

    def put(self, key: CallKey, reply: CallReply) -> None:
        self._answers[key] = reply
        self._bytes += _size(reply)
        while len(self._answers) > MAX_REMEMBERED_ANSWERS or self._bytes > MAX_REMEMBERED_BYTES:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= _size(oldest)


def _size(reply: CallReply) -> int:
    return len(reply.payload or "") + len(reply.message or "")


def _request(call: Call, deadline_ms: int) -> CallRequest:
    return CallRequest(
        id=call.call_id,
        method=call.method,
        payload=call.payload,
        # Names that the broker gives are no assurance to the trusted application (PROTOCOL section 11).
        caller=Caller("none", call.caller),
        deadline_ms=deadline_ms,
        host_time=time.time_ns() // 1_000_000,
    )


def _not_stored(error: StoreError) -> CallRefused:
    return CallRefused(
        "not-stored",
        f"the call's outcome could not be stored: {error.what}",
        advice=error.advice or "nothing of the call was committed; repeat it with the same call id",
        retry_after=RETRY_SECONDS,
    )
