"""What clients send and get, and how an error looks: the form that clients of Azure services show to people."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from edgeclave.errors import EdgeclaveError
from edgeclave.evidence.collection import MAX_EVIDENCE_BYTES
from edgeclave.evidence.maa import MAX_RUNTIME_DATA_BYTES

MAX_BODY_BYTES = 192 << 10
"""Evidence and runtime data at their limits, in base64, with room for names."""
BASE64URL = r"^[A-Za-z0-9_-]*={0,2}$"
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*={0,2}")
Binary = Annotated[str, Meta(pattern=BASE64URL, description="base64url")]


class AppraisalRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Exactly one of `evidence` (our collection) and `quote` (a raw quote or report)."""

    evidence: Binary | None = None
    quote: Binary | None = None
    nonce: Binary | None = None


class RuntimeData(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Of the API of Microsoft Azure Attestation."""

    data: Binary
    data_type: Literal["Binary", "JSON"]


class AttestSgxRequest(msgspec.Struct, rename="camel", omit_defaults=True):
    """Of the API of Microsoft Azure Attestation; draft policies and data from before the start are refused."""

    quote: Binary
    runtime_data: RuntimeData | None = None
    init_time_data: RuntimeData | None = None
    draft_policy_for_attestation: str | None = None


class TokenAnswer(msgspec.Struct):
    """An attestation result as a signed JWT."""

    token: str


class NonceAnswer(msgspec.Struct, rename="camel"):
    """base64url, and for how many seconds evidence with it is accepted."""

    nonce: Binary
    expires_in_seconds: int


class ErrorDetail(msgspec.Struct):
    """`code` is stable."""

    code: str
    message: str
    advice: str = ""


class ErrorAnswer(msgspec.Struct):
    """Every answer but 200."""

    error: ErrorDetail


class RefusalError(EdgeclaveError):
    """A request that is not even appraised. `status` is its HTTP status, `retry_after` in s."""

    def __init__(self, status: int, code: str, what: str, *, advice: str = "", retry_after: float = 0) -> None:
        super().__init__(code, what, advice=advice)
        self.status = status
        self.retry_after = retry_after


def binary(text: str, name: str, limit: int = MAX_EVIDENCE_BYTES) -> bytes:
    """Raises RefusalError 400 `malformed-body`, 413 `body-too-large`."""
    try:
        if not _BASE64URL.fullmatch(text):
            raise ValueError("another character")  # noqa: TRY301
        data = base64.urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
    except (binascii.Error, ValueError) as error:
        raise RefusalError(400, "malformed-body", f"`{name}` is not base64url", advice="see /openapi.json") from error
    if len(data) > limit:
        raise RefusalError(413, "body-too-large", f"`{name}` has more than {limit} bytes", advice="send it alone")
    return data


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def runtime_data(request: AttestSgxRequest) -> bytes | None:
    """Raises RefusalError 400 `not-supported`, `malformed-body`."""
    if request.init_time_data is not None or request.draft_policy_for_attestation is not None:
        raise RefusalError(
            400, "not-supported", "this verifier takes no draft policy and no init time data", advice="leave them out"
        )
    if request.runtime_data is None:
        return None
    data = binary(request.runtime_data.data, "runtimeData", MAX_RUNTIME_DATA_BYTES)
    if request.runtime_data.data_type == "JSON":
        try:
            msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RefusalError(
                400, "malformed-body", "`runtimeData` of type JSON is no JSON", advice="send it as dataType Binary"
            ) from error
    return data


def answer(value: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def error_answer(error: EdgeclaveError) -> web.Response:
    """The evidence was refused: 422 for our API; what was wrong with the request has its own status."""
    status = error.status if isinstance(error, RefusalError) else 422
    response = answer(ErrorAnswer(ErrorDetail(error.code, error.what, error.advice)), status)
    if isinstance(error, RefusalError) and error.retry_after:
        response.headers["Retry-After"] = str(max(1, round(error.retry_after + 0.5)))
    return response
