"""An enclave that is a process of its own, as seen from the host.

The host trusts it with nothing that is the host's: frames and log lines have limits, an answer that is none ends the
process, and so does one that does not come in time. What ends it here ends it with SIGKILL, since nothing inside is
worth an orderly end: what was committed is already stored outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from edgeclave.enclave.messages import (
    BeaconOutcome,
    BeaconRequest,
    CallOutcome,
    CallRequest,
    Compiled,
    CompileRequest,
    Count,
    Counted,
    EvidenceReply,
    EvidenceRequest,
    RecipientsReply,
    RecipientsRequest,
    Recovered,
    Refused,
    Reply,
    Request,
    Started,
    StartRequest,
    Stopped,
    StopRequest,
    TakenUp,
)
from edgeclave.enclave.pipe import LENGTH_BYTES, decode_reply, encode_frame, frame_length
from edgeclave.errors import EdgeclaveError, EnclaveError
from edgeclave.platforms.base import Ended, Keeper
from edgeclave.platforms.debugger import Debugger
from edgeclave.platforms.enclave_log import relay_log
from edgeclave.process_signals import ProcessSignals

START_SECONDS = 420.0
"""A first start compiles, which on a small gateway takes minutes; the enclave has caps of its own below this."""
REQUEST_SECONDS = 10.0
"""For what does not run the trusted application."""
GRACE_SECONDS = 2.0
"""Over the deadline of a call: for sealing its results and instantiating the trusted application anew."""
EXIT_SECONDS = 5.0

_Expected = TypeVar("_Expected")


class _BrokenError(Exception):
    """The enclave does not keep to the protocol; the message says how."""


@dataclass(frozen=True)
class Descriptors:
    """Open descriptors that the enclave inherits under the same numbers."""

    package: int
    hardware: int
    cached: int | None
    fresh: int | None

    def arguments(self) -> list[str]:
        return [str(-1 if n is None else n) for n in (self.package, self.hardware, self.cached, self.fresh)]

    def numbers(self) -> tuple[int, ...]:
        return tuple(n for n in (self.package, self.hardware, self.cached, self.fresh) if n is not None)


@dataclass(frozen=True)
class Counting:
    """The host's part where there is a counter: `run` gives the counter a command and returns its answer."""

    keeper: Keeper
    run: Callable[[bytes], bytes]

    def answer(self, question: Count | Recovered) -> Counted | TakenUp:
        """Raises EdgeclaveError when something cannot be stored or the counter cannot be used."""
        if isinstance(question, Recovered):
            self.keeper.take_up(question.released)
            return TakenUp()
        if question.keep is not None:
            self.keeper.keep(question.keep)
        return Counted(answer=self.run(question.command))


class EnclaveProcess:
    """Implements `Enclave` over a pipe. Made by `spawn` and then `start`, or used up by `compile`."""

    started: Started

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        slot: str,
        counting: Counting | None = None,
        *,
        patient: bool = False,
    ) -> None:
        """`patient`: nothing it is asked has a deadline here."""
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._process = process
        self._signals = ProcessSignals(process)
        self._slot = slot
        self._counting = counting
        self._patient = patient
        self._turn = asyncio.Lock()
        self._end_reason: str | None = None
        self._end_expected = False
        assert process.stderr is not None
        self._log = asyncio.create_task(relay_log(process.stderr, slot), name=f"enclave-log-{slot}")
        self._watcher = asyncio.create_task(self._watch(), name=f"enclave-{slot}")

    @classmethod
    async def spawn(
        cls,
        descriptors: Descriptors,
        slot: str,
        counting: Counting | None = None,
        debugger: Debugger | None = None,
    ) -> EnclaveProcess:
        """Starts the process, with nothing of the host's environment and no descriptors but the named ones.

        `counting` is how it reaches its counter, None where there is none. With a debugger the process is the
        debugger, which starts the enclave when its user tells it to.

        Raises:
            EnclaveError: `enclave-not-started`.
        """
        command = [sys.executable, "-I", "-m", "edgeclave.enclave", *descriptors.arguments()]
        if debugger is not None:
            return cls(await debugger.start([*command, "--debug"], descriptors.numbers()), slot, patient=True)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=descriptors.numbers(),
                env={},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise EnclaveError(
                "enclave-not-started",
                f"the enclave process cannot be started: {error.strerror}",
                where=slot,
                advice="check the memory and the number of processes this user may have",
            ) from error
        return cls(process, slot, counting)

    @property
    def process_id(self) -> int:
        return self._process.pid

    async def start(self, request: StartRequest) -> Started:
        """The first request. When it is refused or cancelled the process is gone.

        Raises:
            EdgeclaveError: with the enclave's code.
        """
        self.started = await self._begin(request, Started)
        return self.started

    async def compile(self) -> bool:
        """Instead of `start`; the process ends. Returns whether compiled code was made and should be kept.

        Raises:
            EdgeclaveError: with the enclave's code.
        """
        return (await self._begin(CompileRequest(), Compiled)).compiled

    async def call(self, request: CallRequest) -> CallOutcome:
        deadline_ms = min(request.deadline_ms or sys.maxsize, self.started.manifest.limits.deadline_ms)
        return await self._ask(request, CallOutcome, deadline_ms / 1000 + GRACE_SECONDS)

    async def evidence(self, nonce: bytes | None) -> bytes:
        request = EvidenceRequest(nonce=nonce, host_time=_now())
        return (await self._ask(request, EvidenceReply, REQUEST_SECONDS)).evidence

    async def set_recipients(self, output: str, message: bytes) -> RecipientsReply:
        return await self._ask(RecipientsRequest(output=output, set=message), RecipientsReply, REQUEST_SECONDS)

    async def beacon(self, message: bytes) -> BeaconOutcome:
        return await self._ask(BeaconRequest(beacon=message, host_time=_now()), BeaconOutcome, REQUEST_SECONDS)

    async def stop(self) -> bytes | None:
        self._end_expected = True
        try:
            record = (await self._ask(StopRequest(), Stopped, REQUEST_SECONDS)).close_record
        except EdgeclaveError:
            record = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if self._patient else EXIT_SECONDS):
                await asyncio.shield(self.ended)
        await self.kill()
        return record

    async def kill(self) -> None:
        self._end_expected = True
        self._kill("it was killed from here")
        await asyncio.shield(self.ended)

    async def _begin(self, request: Request, expected: type[_Expected]) -> _Expected:
        try:
            return await self._ask(request, expected, START_SECONDS)
        except BaseException:
            await self.kill()
            raise

    async def _ask(self, request: Request, expected: type[_Expected], seconds: float) -> _Expected:
        frame = encode_frame(request)
        async with self._turn:
            if self.ended.done():
                raise self._gone()
            try:
                async with asyncio.timeout(None if self._patient else seconds):
                    reply = await self._exchange(frame)
            except TimeoutError:
                raise await self._failed(f"it did not answer `{type(request).__name__}` in {seconds:g} s") from None
            except asyncio.CancelledError:
                # The answer would be taken for that of the next request.
                self._kill("the request in progress was given up")
                raise
            except (asyncio.IncompleteReadError, OSError):
                raise await self._failed("it closed the pipe") from None
            except _BrokenError as error:
                raise await self._failed(str(error)) from None
            except EdgeclaveError as error:
                # The state could not be kept or the counter not moved: the enclave waits, and nothing has left it.
                await self._failed(error.what)
                raise
            if isinstance(reply, expected):
                return reply
            if isinstance(reply, Refused):
                raise EnclaveError(reply.code, reply.what, where=reply.where, advice=reply.advice)
            raise await self._failed(f"it answered with `{type(reply).__name__}`")

    async def _exchange(self, frame: bytes) -> Reply:
        """Sends a request and returns the reply; in between the enclave may ask for its counter."""
        while isinstance(reply := await self._send(frame), Count | Recovered):
            if self._counting is None:
                raise _BrokenError("it asked for a counter that it was not offered")
            frame = encode_frame(self._counting.answer(reply))
        return reply

    async def _send(self, frame: bytes) -> Reply:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(frame)
        await self._process.stdin.drain()
        try:
            length = frame_length(await self._process.stdout.readexactly(LENGTH_BYTES))
            return decode_reply(await self._process.stdout.readexactly(length))
        except EnclaveError as error:
            raise _BrokenError(error.what) from None

    async def _failed(self, reason: str) -> EnclaveError:
        """Ends the process because of what it did; returns the error to raise."""
        self._kill(reason)
        await asyncio.shield(self.ended)
        return self._gone()

    def _kill(self, reason: str) -> None:
        if self._end_reason is None:
            self._end_reason = reason
        self._signals.send(signal.SIGKILL)

    async def _watch(self) -> None:
        exit_code = await self._process.wait()
        self._signals.close()
        await asyncio.wait({self._log}, timeout=EXIT_SECONDS)
        self._log.cancel()
        if self._process.stdin is not None:
            self._process.stdin.close()
        # What the kernel did to it says more than what was seen of that from here.
        reason = _by_the_kernel(exit_code) or self._end_reason or _describe(exit_code)
        self.ended.set_result(Ended(reason, exit_code, self._end_expected))

    def _gone(self) -> EnclaveError:
        return EnclaveError(
            "enclave-ended",
            f"the enclave of {self._slot} has ended: {self.ended.result().reason}",
            where=self._slot,
            advice="it is started again; repeat the call with the same call id",
        )


def _by_the_kernel(exit_code: int) -> str | None:
    """None when it ended by itself, or by the signal that is used from here."""
    if exit_code >= 0 or exit_code == -signal.SIGKILL:
        return None
    if exit_code == -signal.SIGSYS:
        return "the kernel killed it for a forbidden system call"
    return _describe(exit_code)


def _describe(exit_code: int) -> str:
    if exit_code < 0:
        with contextlib.suppress(ValueError):
            return f"ended by {signal.Signals(-exit_code).name}"
    return "it ended" if exit_code == 0 else f"it ended with exit code {exit_code}; its log says why"


def _now() -> int:
    return time.time_ns() // 1_000_000
