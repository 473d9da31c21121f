"""Direct methods from IoT Hub. They arrive as the identity `iothub`, through the same gate as everyone.

`listTrustedApps`, `invoke` {trustedApp, method, payload, callId?}, `getEvidence` {trustedApp, nonce?}. The sealed
results of `invoke` go upstream through ta_runner's outbox, not into the method's answer.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from edgeclave.edge.link.messages import CallId, Name
from edgeclave.edge.twins.access_policy import IOTHUB
from edgeclave.errors import EdgeclaveError
from enclave_broker.operations import DEFAULT_DEADLINE_MS, Operations
from enclave_broker.responses import EvidenceAnswer, RefusalError, error_answer, invoke_answer, status_of
from enclave_broker.server import read_nonce

MAX_PAYLOAD_BYTES = 128 * 1024
"""Azure's limit for a direct method's request and response."""

MethodAnswer = tuple[int, Any]
Arguments = TypeVar("Arguments")


class InvokeArguments(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Payload of `invoke`."""

    trusted_app: Name
    method: Name
    payload: Any = None
    call_id: CallId | None = None


class EvidenceArguments(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Payload of `getEvidence`."""

    trusted_app: Name
    nonce: str | None = None


class DirectMethods:
    """Handlers for HubConnection.on_method; each takes the payload and returns (status, payload)."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def handlers(self) -> dict[str, Callable[[Any], Awaitable[MethodAnswer]]]:
        """Handlers by method name."""
        return {
            "listTrustedApps": self._guard(self._list),
            "invoke": self._guard(self._invoke),
            "getEvidence": self._guard(self._evidence),
        }

    async def _list(self, _payload: Any) -> Any:
        return await self._operations.list_trusted_apps(IOTHUB, deadline=_deadline())

    async def _invoke(self, payload: Any) -> Any:
        arguments = _arguments(payload, InvokeArguments)
        call_id = arguments.call_id or uuid.uuid4().hex
        reply = await self._operations.invoke(
            IOTHUB,
            arguments.trusted_app,
            arguments.method,
            msgspec.json.encode(arguments.payload).decode(),
            call_id=call_id,
            deadline=_deadline(),
            deliver="upstream",
        )
        return invoke_answer(call_id, reply, with_results=False)

    async def _evidence(self, payload: Any) -> Any:
        arguments = _arguments(payload, EvidenceArguments)
        nonce = read_nonce(arguments.nonce)
        evidence = await self._operations.evidence(IOTHUB, arguments.trusted_app, nonce, deadline=_deadline())
        return EvidenceAnswer(arguments.trusted_app, evidence)

    def _guard(self, method: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[MethodAnswer]]:
        async def handler(payload: Any) -> MethodAnswer:
            try:
                _check_size(payload, "payload-too-large", "payload", "send it in smaller pieces")
                answer = msgspec.json.encode(await method(payload))
                _check_size(msgspec.Raw(answer), "answer-too-large", "answer", "ask for less")
                return 200, msgspec.json.decode(answer)
            except EdgeclaveError as error:
                return status_of(error), msgspec.to_builtins(error_answer(error))

        return handler


def _deadline() -> float:
    return asyncio.get_running_loop().time() + DEFAULT_DEADLINE_MS / 1000


def _arguments(payload: Any, kind: type[Arguments]) -> Arguments:
    try:
        return msgspec.convert(payload, kind)
    except msgspec.ValidationError as error:
        fields = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))  # type: ignore[arg-type]
        what = f"the method's payload cannot be used: {error}"
        raise RefusalError(400, "malformed-payload", what, advice=f"send an object with {fields}") from error


def _check_size(value: Any, code: str, name: str, advice: str) -> None:
    size = len(msgspec.json.encode(value))
    if size > MAX_PAYLOAD_BYTES:
        what = f"the method's {name} has {size} bytes, IoT Hub carries {MAX_PAYLOAD_BYTES}"
        raise RefusalError(413, code, what, advice=advice)
