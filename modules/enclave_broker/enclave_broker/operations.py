"""What callers may ask for, whichever way they come: each passes the gate, takes a slot, and goes to ta_runner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from edgeclave.edge.link import Acknowledge, Call, CallReply, GetEvidence, LinkClient, List
from edgeclave.edge.link.messages import MAX_DEADLINE_MS
from edgeclave.errors import EdgeclaveError
from enclave_broker.gate import Gate
from enclave_broker.metrics import Metrics
from enclave_broker.quotas import Limiter
from enclave_broker.responses import ListAnswer, RefusalError, TrustedAppAnswer
from enclave_broker.runner_link import ANSWER_SECONDS

DEFAULT_DEADLINE_MS = 30_000
"""For requests that name none."""

Answer = TypeVar("Answer")


class Operations:
    """Authorized, limited, measured requests to ta_runner.

    In every method `caller` is an identity as the policy knows it, and `deadline` a time of the running loop's clock.
    All raise RefusalError, QuotaError, AuditError, or LinkError (the link's own, or ta_runner's problem).
    """

    def __init__(self, gate: Gate, limiter: Limiter, link: LinkClient, metrics: Metrics) -> None:
        self._gate = gate
        self._limiter = limiter
        self._link = link
        self._metrics = metrics

    async def invoke(
        self,
        caller: str,
        trusted_app: str,
        method: str,
        payload: str,
        *,
        call_id: str,
        deadline: float,
        deliver: Literal["caller", "upstream"] = "caller",
    ) -> CallReply:
        """Call a method; the same call id again gets the same answer."""

        async def send(seconds: float) -> CallReply:
            call = Call(
                trusted_app=trusted_app,
                method=method,
                payload=payload,
                call_id=call_id,
                caller=caller,
                deadline_ms=min(max(int(seconds * 1000), 1), MAX_DEADLINE_MS),
                deliver=deliver,
            )
            return await self._link.request(call, timeout_seconds=seconds + ANSWER_SECONDS)

        operation = f"invoke:{trusted_app}/{method}"
        return await self._ask(caller, operation, trusted_app, deadline, send, call_id=call_id)

    async def acknowledge(self, caller: str, trusted_app: str, call_ids: tuple[str, ...], *, deadline: float) -> int:
        """Let the runner forget calls whose results the caller has stored; returns how many were still kept."""

        async def send(seconds: float) -> int:
            message = Acknowledge(trusted_app=trusted_app, call_ids=call_ids, caller=caller)
            return (await self._link.request(message, timeout_seconds=seconds)).count

        return await self._ask(caller, f"acknowledge:{trusted_app}", trusted_app, deadline, send)

    async def evidence(self, caller: str, trusted_app: str, nonce: bytes | None, *, deadline: float) -> bytes:
        """Evidence of a trusted application, fresh over a nonce of 8 to 64 bytes or the latest without one."""

        async def send(seconds: float) -> bytes:
            message = GetEvidence(trusted_app=trusted_app, nonce=nonce)
            return (await self._link.request(message, timeout_seconds=seconds)).evidence

        return await self._ask(caller, f"evidence:{trusted_app}", trusted_app, deadline, send)

    async def list_trusted_apps(self, caller: str, *, deadline: float) -> ListAnswer:
        """The trusted applications that the caller may list, by name."""

        async def send(seconds: float) -> ListAnswer:
            apps = (await self._link.request(List(), timeout_seconds=seconds)).trusted_apps
            visible = sorted(name for name in apps if self._gate.may(caller, "list", name))
            return ListAnswer([TrustedAppAnswer.of(name, apps[name]) for name in visible])

        return await self._ask(caller, "list", None, deadline, send)

    async def _ask(
        self,
        caller: str,
        operation: str,
        resource: str | None,
        deadline: float,
        send: Callable[[float], Awaitable[Answer]],
        *,
        call_id: str | None = None,
    ) -> Answer:
        """`send` gets the seconds that are left."""
        started = time.perf_counter()
        kind = operation.partition(":")[0]
        outcome = "cancelled"
        try:
            self._gate.authorize(caller, operation, resource, call_id=call_id)
            async with self._limiter.slot(caller, deadline):
                self._metrics.in_flight.inc()
                try:
                    seconds = deadline - asyncio.get_running_loop().time()
                    if seconds <= 0:
                        raise RefusalError(
                            504, "deadline-exceeded", "the request's deadline passed before it was sent on"
                        )
                    answer = await send(seconds)
                finally:
                    self._metrics.in_flight.dec()
        except EdgeclaveError as error:
            outcome = error.code
            raise
        else:
            failed = isinstance(answer, CallReply) and answer.status != 200
            outcome = "failure" if failed else "ok"
            return answer
        finally:
            self._metrics.requests.labels(kind, outcome).inc()
            self._metrics.latency.labels(kind).observe(time.perf_counter() - started)
