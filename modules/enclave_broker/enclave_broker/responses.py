"""What goes back to a caller: answers of trusted applications, and every error as one JSON form with one status."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from aiohttp import web

from edgeclave.edge.link import CallReply, Reason, TrustedAppSummary
from edgeclave.errors import EdgeclaveError

_STATUS = {
    "unknown-trusted-app": 404,
    "unknown-method": 404,
    "message-too-large": 413,
    "payload-too-large": 413,
    "too-many-requests": 429,
    "trusted-app-not-running": 503,
    "audit-unavailable": 503,
    "link-timeout": 504,
    "deadline-exceeded": 504,
}
"""Statuses of error codes that do not bring their own. Any other is 503 when repeating may help and 400 when not."""


class RefusalError(EdgeclaveError):
    """A request that the broker does not pass on. `status` is its HTTP status, `retry_after` in seconds."""

    def __init__(
        self,
        status: int,
        code: str,
        what: str,
        *,
        where: str = "",
        advice: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code, what, where=where, advice=advice)
        self.status = status
        self.retry_after = retry_after


class SealedResultAnswer(msgspec.Struct, rename="camel"):
    """One sealed result; `sealed` is base64 in JSON."""

    output: str
    sequence: int
    sealed: bytes


class InvokeAnswer(msgspec.Struct, rename="camel", omit_defaults=True):
    """The trusted application's answer: a payload with status 200, or its failure's status and message."""

    call_id: str
    status: int
    results: tuple[SealedResultAnswer, ...]
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    message: str | None = None


class ErrorDetail(msgspec.Struct):
    """Branch on `code`; `what` and `advice` are for people."""

    code: str
    what: str
    advice: str = ""


class ErrorAnswer(msgspec.Struct):
    """The body of every answer that is not 200."""

    error: ErrorDetail


class AcknowledgeAnswer(msgspec.Struct):
    """`acknowledged`: how many of the calls were still kept."""

    acknowledged: int


class TrustedAppAnswer(msgspec.Struct, rename="camel"):
    """One trusted application that the caller may see; identity fields are null until it was started."""

    name: str
    state: str
    version: str | None
    unique_id: str | None
    signer_id: str | None
    product_id: int | None
    security_version: int | None
    debug: bool | None
    methods: tuple[str, ...]
    reason: Reason | None

    @classmethod
    def of(cls, name: str, summary: TrustedAppSummary) -> TrustedAppAnswer:
        """From what ta_runner says."""
        return cls(name, **msgspec.structs.asdict(summary))


class ListAnswer(msgspec.Struct, rename="camel"):
    """The trusted applications that the caller may see, by name."""

    trusted_apps: list[TrustedAppAnswer]


class EvidenceAnswer(msgspec.Struct, rename="camel"):
    """`evidence` is the evidence collection in base64, of the media type given."""

    trusted_app: str
    evidence: bytes
    media_type: str = "application/edgeclave-evidence+cbor"


_encoder = msgspec.json.Encoder()


def json_response(answer: Any, status: int = 200) -> web.Response:
    """An answer as an HTTP response."""
    return web.Response(status=status, body=_encoder.encode(answer), content_type="application/json")


def invoke_answer(call_id: str, reply: CallReply, *, with_results: bool = True) -> InvokeAnswer:
    """A reply in its outer form; the payload passes through as it is."""
    results = tuple(SealedResultAnswer(r.output, r.sequence, r.sealed) for r in reply.results) if with_results else ()
    payload = msgspec.UNSET if reply.payload is None else msgspec.Raw(reply.payload.encode())
    return InvokeAnswer(call_id, reply.status, results, payload, reply.message)


def status_of(error: EdgeclaveError) -> int:
    """The HTTP status of an error."""
    status: int | None = getattr(error, "status", None) or _STATUS.get(error.code)
    if status is not None:
        return status
    return 400 if getattr(error, "retry_after", None) is None else 503


def error_answer(error: EdgeclaveError) -> ErrorAnswer:
    """An error in its outer form."""
    what = f"{error.what} ({error.where})" if error.where else error.what
    return ErrorAnswer(ErrorDetail(error.code, what, error.advice))


def error_response(error: EdgeclaveError) -> web.Response:
    """An error as an HTTP response; 429 and 503 carry Retry-After (whole seconds, at least one)."""
    status = status_of(error)
    response = json_response(error_answer(error), status)
    if status in (429, 503):
        response.headers["Retry-After"] = str(max(1, math.ceil(getattr(error, "retry_after", None) or 1.0)))
    return response
