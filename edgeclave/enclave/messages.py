"""What the host may ask of an enclave and what it is answered, one request at a time.

Both ends share these definitions. They travel as MessagePack, decoded straight into these types: an unknown field, a
missing one or a wrong type never reaches the code behind. `host_time` is milliseconds since 1970 as the host says; it
is passed on and reported, never relied on.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edgeclave.wire import MAX_OUTPUTS, Label

MAX_CALL_ID_CHARACTERS = 128
MAX_CALLER_CHARACTERS = 1024
MAX_COUNTER_MESSAGE_BYTES = 4096
MAX_NONCE_BYTES = 64
MIN_NONCE_BYTES = 8

Slot = Label
"""The name under which a device runs a trusted application; part of what a stream of results is."""
Milliseconds = Annotated[int, Meta(ge=0, lt=1 << 53)]
Assurance = Literal["none", "confidential", "authenticated"]
Nonce = Annotated[bytes, Meta(min_length=MIN_NONCE_BYTES, max_length=MAX_NONCE_BYTES)]


class Caller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who calls, as the host says: in the clear there is no other assurance than `none` (PROTOCOL section 11)."""

    assurance: Literal["none"] = "none"
    name: Annotated[str, Meta(max_length=MAX_CALLER_CHARACTERS)] = ""


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", kw_only=True):
    pass


class StartRequest(_Request, frozen=True, tag="start"):
    """The first request. `state` is the sealed state last stored, None on the very first start.

    `pending` is the sealed state that was to be kept last and whose commit was never heard of, None if all were.
    `shown` holds, per output, the last sealed result of the previous instance, and `shown_open` its open record.
    """

    slot: Slot
    host_time: Milliseconds
    state: bytes | None = None
    pending: bytes | None = None
    shown: Annotated[dict[str, bytes], Meta(max_length=MAX_OUTPUTS)] = {}
    shown_open: bytes | None = None
    recipients: Annotated[dict[str, bytes], Meta(max_length=MAX_OUTPUTS)] = {}
    beacon: bytes | None = None


class CompileRequest(_Request, frozen=True, tag="compile"):
    """Instead of `start`: makes the compiled code that a start of this package will want, and ends.

    It names no slot and is shown no state, so that it can come while an instance runs there.
    """


class CallRequest(_Request, frozen=True, tag="call"):
    """One call. `deadline_ms` can only shorten the deadline of the manifest."""

    id: Annotated[str, Meta(max_length=MAX_CALL_ID_CHARACTERS)]
    method: str
    payload: str
    host_time: Milliseconds
    caller: Caller = Caller()
    deadline_ms: Annotated[int, Meta(ge=1)] | None = None


class EvidenceRequest(_Request, frozen=True, tag="evidence"):
    """Evidence for a verifier's nonce, or with the last beacon when there is none."""

    host_time: Milliseconds
    nonce: Nonce | None = None


class RecipientsRequest(_Request, frozen=True, tag="recipients"):
    """A recipient set of one output, signed by the authority that the manifest names."""

    output: str
    set: bytes


class BeaconRequest(_Request, frozen=True, tag="beacon"):
    """A beacon signed by the authority that the manifest names; answered with one heartbeat per output."""

    beacon: bytes
    host_time: Milliseconds


class StopRequest(_Request, frozen=True, tag="stop"):
    """Ends the instance with a close record; the process then exits with 0."""


class TakenUp(_Request, frozen=True, tag="taken-up"):
    """The answer to `Recovered`; the only thing that may follow it."""


class Counted(_Request, frozen=True, tag="counted"):
    """The counter's answer to `Count`; the only thing that may follow it."""

    answer: Annotated[bytes, Meta(max_length=MAX_COUNTER_MESSAGE_BYTES)]


Request = (
    StartRequest
    | CompileRequest
    | CallRequest
    | EvidenceRequest
    | RecipientsRequest
    | BeaconRequest
    | StopRequest
    | Counted
    | TakenUp
)


class IdentityView(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`edgeclave.ta.identity.Identity` as it stands in a reply; `debug` is the effective one."""

    unique_id: bytes
    signer_id: bytes
    product_id: int
    security_version: int
    debug: bool


class LimitsView(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of the manifest."""

    memory_mib: int
    deadline_ms: int
    message_kib: int


class ManifestView(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the host needs of the signed manifest; `methods` maps each method to the channel it asks for."""

    name: str
    version: str
    methods: dict[str, str]
    outputs: tuple[str, ...]
    limits: LimitsView


class SealedResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sealed result as it goes upstream."""

    output: str
    sequence: int
    sealed: bytes


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a call had no reply. The statuses of the enclave itself are named in `edgeclave.enclave.status`."""

    status: int
    message: str


class Released(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one commit lets out of the enclave: the answer of a call (`call_id`), heartbeats, or the opening.

    With a counter it is part of the snapshot that the commit makes, so that it is not lost when enclave or host end
    after the counter moved and before this was stored.
    """

    call_id: str | None = None
    reply: str | None = None
    results: tuple[SealedResult, ...] = ()
    evidence: bytes | None = None
    open_record: bytes | None = None


class _Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", kw_only=True):
    pass


class Started(_Reply, frozen=True, tag="started"):
    """`compiled`: the compiled code was made anew, so the host should keep what is now in the cache file."""

    identity: IdentityView
    manifest: ManifestView
    instance_id: bytes
    epoch: int
    evidence: bytes
    open_record: bytes
    state: bytes
    compiled: bool


class Compiled(_Reply, frozen=True, tag="compiled"):
    """The package may run here as far as that can be told without running it. `compiled`: as in `Started`."""

    compiled: bool


class CallOutcome(_Reply, frozen=True, tag="outcome"):
    """Exactly one of `reply` and `failure`. `state` is new sealed state to be stored, None when it did not change.

    `poisoned`: the guest was ended by a trap, the deadline or a limit; what it held in memory is gone.
    """

    reply: str | None = None
    failure: Failure | None = None
    results: tuple[SealedResult, ...] = ()
    state: bytes | None = None
    poisoned: bool = False


class EvidenceReply(_Reply, frozen=True, tag="evidence"):
    evidence: bytes


class RecipientsReply(_Reply, frozen=True, tag="recipients"):
    """The version now in force, and state to be stored when it rose."""

    version: int
    state: bytes | None = None


class BeaconOutcome(_Reply, frozen=True, tag="heartbeats"):
    results: tuple[SealedResult, ...] = ()
    state: bytes | None = None


class Stopped(_Reply, frozen=True, tag="stopped"):
    close_record: bytes


class Count(_Reply, frozen=True, tag="count"):
    """In the middle of a request: store `keep`, durably, as the pending state; then give the counter this command.

    Answered with `Counted`. Only where the platform has a counter.
    """

    command: Annotated[bytes, Meta(max_length=MAX_COUNTER_MESSAGE_BYTES)]
    keep: bytes | None = None


class Recovered(_Reply, frozen=True, tag="recovered"):
    """In the middle of a start: the commit of the `pending` state had come through. It is the state in force.

    `released` is what the host did not get to store; to be stored together with that, then answered with `TakenUp`.
    """

    released: Released


class Refused(_Reply, frozen=True, tag="error"):
    """An EdgeclaveError of the enclave, field by field."""

    code: str
    what: str
    where: str = ""
    advice: str = ""


Reply = (
    Started
    | Compiled
    | CallOutcome
    | EvidenceReply
    | RecipientsReply
    | BeaconOutcome
    | Stopped
    | Count
    | Recovered
    | Refused
)


def is_json(data: bytes) -> bool:
    """What payloads, replies and results are. Nesting that no decoder can follow is none."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return True
