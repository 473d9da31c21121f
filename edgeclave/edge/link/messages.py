"""What is said on the link. Each message is one MessagePack map with its kind and the request's id.

Everything is checked where it enters: unknown kinds, fields, names and sizes end the connection.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec

from edgeclave.errors import EdgeclaveError

LINK_PORT = 8444
LINK_PATH = "/link"
LINK_PROTOCOL = "edgeclave-link-1"
"""WebSocket subprotocol: two releases that do not speak the same messages part at the handshake."""
MAX_MESSAGE_BYTES = 2 * 1024 * 1024
MAX_IN_FLIGHT = 256
"""Requests in flight on one link; more are refused with `link-busy`."""
MAX_ACKNOWLEDGED_CALLS = 1000
"""Call ids in one acknowledgement."""
MAX_DEADLINE_MS = 60_000
HEARTBEAT_SECONDS = 10.0
"""A ping each; a peer that does not answer within half of it is gone."""

NAME_PATTERN = r"^[A-Za-z0-9._-]{1,128}\Z"

Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
"""Name of a trusted application or method."""
CallId = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
CallerName = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
DeadlineMs = Annotated[int, msgspec.Meta(ge=1, le=MAX_DEADLINE_MS)]
Nonce = Annotated[bytes, msgspec.Meta(min_length=8, max_length=64)]
"""Eight to 64 bytes (RFC 9711 section 4.1)."""


class LinkError(EdgeclaveError):
    """A request over the link that got no answer, or the problem that the runner answered.

    `retry_after`: seconds after which the same request may do better; None when repeating it is useless.
    """

    def __init__(
        self, code: str, what: str, *, where: str = "", advice: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(code, what, where=where, advice=advice)
        self.retry_after = retry_after


class Message(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of all messages. A reply carries the id of its request; the link sets it."""

    id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0


class Call(Message, tag="call"):
    """Invoke a method. The same (trusted_app, call_id, caller) again gets the stored answer."""

    trusted_app: Name
    method: Name
    payload: str
    call_id: CallId
    caller: CallerName
    deadline_ms: DeadlineMs
    deliver: Literal["caller", "upstream"] = "caller"


class Acknowledge(Message, tag="acknowledge"):
    """The caller has stored the results of these calls; the runner may forget them."""

    trusted_app: Name
    call_ids: Annotated[tuple[CallId, ...], msgspec.Meta(min_length=1, max_length=MAX_ACKNOWLEDGED_CALLS)]
    caller: CallerName


class GetEvidence(Message, tag="get-evidence"):
    """Evidence of a running trusted application over a fresh nonce, or the latest without one."""

    trusted_app: Name
    nonce: Nonce | None = None


class List(Message, tag="list"):
    """What runs here."""


class SealedResult(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One sealed result of a call: the TA's output name, its sequence number there, the COSE bytes."""

    output: str
    sequence: int
    sealed: bytes


class CallReply(Message, tag="call-reply"):
    """The trusted application answered: status 200 with a JSON payload, or its failure's status and message."""

    status: int
    payload: str | None = None
    message: str | None = None
    results: tuple[SealedResult, ...] = ()


class AcknowledgeReply(Message, tag="acknowledge-reply"):
    """`count`: how many of the calls were still there to forget."""

    count: int = 0


class EvidenceReply(Message, tag="evidence-reply"):
    """The evidence collection, as it would go upstream."""

    evidence: bytes


class Reason(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Why a trusted application is not running."""

    code: str
    what: str
    advice: str = ""


class TrustedAppSummary(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """One trusted application as ta_runner reports it; identity fields are None until it has been started."""

    state: str
    version: str | None = None
    unique_id: str | None = None
    signer_id: str | None = None
    product_id: int | None = None
    security_version: int | None = None
    debug: bool | None = None
    methods: tuple[str, ...] = ()
    reason: Reason | None = None


class ListReply(Message, tag="list-reply"):
    """All trusted applications of the runner by name."""

    trusted_apps: dict[str, TrustedAppSummary]


class Problem(Message, tag="problem"):
    """Any request that got no answer of its kind. `retry_after` in seconds, None when repeating is useless."""

    code: str
    what: str
    advice: str = ""
    retry_after: float | None = None


Request = Call | Acknowledge | GetEvidence | List
Reply = CallReply | AcknowledgeReply | EvidenceReply | ListReply

_Decoded = TypeVar("_Decoded")
_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply_decoder: msgspec.msgpack.Decoder[Reply | Problem] = msgspec.msgpack.Decoder(Reply | Problem)


def encode(message: Message) -> bytes:
    """The message's bytes. Raises LinkError(message-too-large) beyond MAX_MESSAGE_BYTES."""
    data = _encoder.encode(message)
    if len(data) > MAX_MESSAGE_BYTES:
        raise LinkError(
            "message-too-large",
            f"the message has {len(data)} bytes, the link carries {MAX_MESSAGE_BYTES}",
            advice="send fewer readings per call, or let the trusted application emit less per call",
        )
    return data


def decode_request(data: object) -> Request:
    """Read a request from a frame's data, which must be binary. Raises LinkError(malformed-message)."""
    return _decode(_request_decoder, data)


def decode_reply(data: object) -> Reply | Problem:
    """Read a reply from a frame's data, which must be binary. Raises LinkError(malformed-message)."""
    return _decode(_reply_decoder, data)


def _decode(decoder: msgspec.msgpack.Decoder[_Decoded], data: object) -> _Decoded:
    advice = "run the same release of enclave_broker and ta_runner"
    if not isinstance(data, bytes):
        raise LinkError("malformed-message", "the peer sent a frame that is not binary", advice=advice)
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = f"the peer sent what is no message of this link: {error}"
        raise LinkError("malformed-message", what, advice=advice) from error
