"""The frames of AMQP 1.0 part 2 (transport) and part 5 (SASL), with the sources, targets and states they carry.

Each class is one described list; the order of its fields is the order on the wire. Every field is always written, null
or not: azure-eventhub reads frames by position without looking at their length.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from edgeclave.simulator.amqp.codec import encode, encode_list
from edgeclave.simulator.amqp.types import DECODE_ERROR, AmqpError, Array, Described, Symbol, UByte, UInt, ULong, UShort

SENDER, RECEIVER = False, True  # role, part 2 section 2.8.1
SETTLED_BY_SENDER = 1  # snd-settle-mode, section 2.8.2
SASL_OK, SASL_AUTH = 0, 1  # sasl-code, part 5 section 5.3.3.6


def _of(kind: type) -> dict[str, type]:
    """The AMQP type of a field; a field without a default is mandatory."""
    return {"kind": kind}


@dataclass(frozen=True, kw_only=True)
class Composite:
    """A described list."""

    code: ClassVar[int]

    def to_bytes(self) -> bytes:
        values = [self._wire(item) for item in dataclasses.fields(self)]
        return b"\x00" + encode(ULong(self.code)) + encode_list(values)

    def _wire(self, slot: dataclasses.Field[Any]) -> Any:
        value = getattr(self, slot.name)
        kind = slot.metadata["kind"]
        if isinstance(value, Composite):
            return Described(ULong(value.code), [value._wire(inner) for inner in dataclasses.fields(value)])
        return value if value is None or isinstance(value, kind) else kind(value)

    @classmethod
    def from_value(cls, value: Any) -> Self:
        """From a decoded described list.

        Raises:
            AmqpError: `amqp:decode-error` for another descriptor, too many fields, a wrong type or a missing field.
        """
        fields = dataclasses.fields(cls)
        if not isinstance(value, Described) or value.descriptor != cls.code or not isinstance(value.value, list):
            raise AmqpError(DECODE_ERROR, f"expected {cls.__name__.lower()}")
        if len(value.value) > len(fields):
            raise AmqpError(DECODE_ERROR, f"{cls.__name__.lower()} has too many fields")
        values = value.value + [None] * (len(fields) - len(value.value))
        return cls(**{slot.name: cls._checked(slot, item) for slot, item in zip(fields, values, strict=True)})

    @classmethod
    def _checked(cls, slot: dataclasses.Field[Any], item: Any) -> Any:
        kind = slot.metadata["kind"]
        if item is None:
            if slot.default is dataclasses.MISSING:
                raise AmqpError(DECODE_ERROR, f"{cls.__name__.lower()} lacks {slot.name}")
            return slot.default
        if issubclass(kind, Composite):
            return kind.from_value(item)
        if kind is not object and not isinstance(item, kind):
            raise AmqpError(DECODE_ERROR, f"{slot.name} of {cls.__name__.lower()} has the wrong type")
        return item


@dataclass(frozen=True, kw_only=True)
class Error(Composite):
    code = 0x1D
    condition: str = field(metadata=_of(Symbol))
    description: str | None = field(default=None, metadata=_of(str))
    info: dict[Any, Any] | None = field(default=None, metadata=_of(dict))


@dataclass(frozen=True, kw_only=True)
class Source(Composite):
    code = 0x28
    address: str | None = field(default=None, metadata=_of(str))
    durable: int = field(default=0, metadata=_of(UInt))
    expiry_policy: str | None = field(default=None, metadata=_of(Symbol))
    timeout: int = field(default=0, metadata=_of(UInt))
    dynamic: bool = field(default=False, metadata=_of(bool))
    dynamic_node_properties: dict[Any, Any] | None = field(default=None, metadata=_of(dict))
    distribution_mode: str | None = field(default=None, metadata=_of(Symbol))
    filter: dict[Any, Any] | None = field(default=None, metadata=_of(dict))
    default_outcome: Any = field(default=None, metadata=_of(object))
    outcomes: Any = field(default=None, metadata=_of(object))
    capabilities: Any = field(default=None, metadata=_of(object))


@dataclass(frozen=True, kw_only=True)
class Target(Composite):
    code = 0x29
    address: str | None = field(default=None, metadata=_of(str))
    durable: int = field(default=0, metadata=_of(UInt))
    expiry_policy: str | None = field(default=None, metadata=_of(Symbol))
    timeout: int = field(default=0, metadata=_of(UInt))
    dynamic: bool = field(default=False, metadata=_of(bool))
    dynamic_node_properties: dict[Any, Any] | None = field(default=None, metadata=_of(dict))
    capabilities: Any = field(default=None, metadata=_of(object))


@dataclass(frozen=True, kw_only=True)
class Accepted(Composite):
    code = 0x24


@dataclass(frozen=True, kw_only=True)
class Rejected(Composite):
    code = 0x25
    error: Error | None = field(default=None, metadata=_of(Error))


@dataclass(frozen=True, kw_only=True)
class Open(Composite):
    code = 0x10
    container_id: str = field(metadata=_of(str))
    hostname: str | None = field(default=None, metadata=_of(str))
    max_frame_size: int = field(default=0xFFFF_FFFF, metadata=_of(UInt))
    channel_max: int = field(default=0xFFFF, metadata=_of(UShort))
    idle_time_out: int | None = field(default=None, metadata=_of(UInt))
    outgoing_locales: Any = field(default=None, metadata=_of(object))
    incoming_locales: Any = field(default=None, metadata=_of(object))
    offered_capabilities: Any = field(default=None, metadata=_of(object))
    desired_capabilities: Any = field(default=None, metadata=_of(object))
    properties: dict[Any, Any] | None = field(default=None, metadata=_of(dict))


@dataclass(frozen=True, kw_only=True)
class Begin(Composite):
    code = 0x11
    remote_channel: int | None = field(default=None, metadata=_of(UShort))
    next_outgoing_id: int = field(metadata=_of(UInt))
    incoming_window: int = field(metadata=_of(UInt))
    outgoing_window: int = field(metadata=_of(UInt))
    handle_max: int = field(default=0xFFFF_FFFF, metadata=_of(UInt))
    offered_capabilities: Any = field(default=None, metadata=_of(object))
    desired_capabilities: Any = field(default=None, metadata=_of(object))
    properties: dict[Any, Any] | None = field(default=None, metadata=_of(dict))


@dataclass(frozen=True, kw_only=True)
class Attach(Composite):
    code = 0x12
    name: str = field(metadata=_of(str))
    handle: int = field(metadata=_of(UInt))
    role: bool = field(metadata=_of(bool))
    snd_settle_mode: int = field(default=2, metadata=_of(UByte))
    rcv_settle_mode: int = field(default=0, metadata=_of(UByte))
    source: Source | None = field(default=None, metadata=_of(Source))
    target: Target | None = field(default=None, metadata=_of(Target))
    unsettled: dict[Any, Any] | None = field(default=None, metadata=_of(dict))
    incomplete_unsettled: bool = field(default=False, metadata=_of(bool))
    initial_delivery_count: int | None = field(default=None, metadata=_of(UInt))
    max_message_size: int | None = field(default=None, metadata=_of(ULong))
    offered_capabilities: Any = field(default=None, metadata=_of(object))
    desired_capabilities: Any = field(default=None, metadata=_of(object))
    properties: dict[Any, Any] | None = field(default=None, metadata=_of(dict))


@dataclass(frozen=True, kw_only=True)
class Flow(Composite):
    code = 0x13
    next_incoming_id: int | None = field(default=None, metadata=_of(UInt))
    incoming_window: int = field(metadata=_of(UInt))
    next_outgoing_id: int = field(metadata=_of(UInt))
    outgoing_window: int = field(metadata=_of(UInt))
    handle: int | None = field(default=None, metadata=_of(UInt))
    delivery_count: int | None = field(default=None, metadata=_of(UInt))
    link_credit: int | None = field(default=None, metadata=_of(UInt))
    available: int | None = field(default=None, metadata=_of(UInt))
    drain: bool = field(default=False, metadata=_of(bool))
    echo: bool = field(default=False, metadata=_of(bool))
    properties: dict[Any, Any] | None = field(default=None, metadata=_of(dict))


@dataclass(frozen=True, kw_only=True)
class Transfer(Composite):
    code = 0x14
    handle: int = field(metadata=_of(UInt))
    delivery_id: int | None = field(default=None, metadata=_of(UInt))
    delivery_tag: bytes | None = field(default=None, metadata=_of(bytes))
    message_format: int | None = field(default=None, metadata=_of(UInt))
    settled: bool | None = field(default=None, metadata=_of(bool))
    more: bool = field(default=False, metadata=_of(bool))
    rcv_settle_mode: int | None = field(default=None, metadata=_of(UByte))
    state: Any = field(default=None, metadata=_of(object))
    resume: bool = field(default=False, metadata=_of(bool))
    aborted: bool = field(default=False, metadata=_of(bool))
    batchable: bool = field(default=False, metadata=_of(bool))


@dataclass(frozen=True, kw_only=True)
class Disposition(Composite):
    code = 0x15
    role: bool = field(metadata=_of(bool))
    first: int = field(metadata=_of(UInt))
    last: int | None = field(default=None, metadata=_of(UInt))
    settled: bool = field(default=False, metadata=_of(bool))
    state: Any = field(default=None, metadata=_of(object))
    batchable: bool = field(default=False, metadata=_of(bool))


@dataclass(frozen=True, kw_only=True)
class Detach(Composite):
    code = 0x16
    handle: int = field(metadata=_of(UInt))
    closed: bool = field(default=False, metadata=_of(bool))
    error: Error | None = field(default=None, metadata=_of(Error))


@dataclass(frozen=True, kw_only=True)
class End(Composite):
    code = 0x17
    error: Error | None = field(default=None, metadata=_of(Error))


@dataclass(frozen=True, kw_only=True)
class Close(Composite):
    code = 0x18
    error: Error | None = field(default=None, metadata=_of(Error))


@dataclass(frozen=True, kw_only=True)
class SaslMechanisms(Composite):
    code = 0x40
    sasl_server_mechanisms: Any = field(metadata=_of(Array))


@dataclass(frozen=True, kw_only=True)
class SaslInit(Composite):
    code = 0x41
    mechanism: str = field(metadata=_of(Symbol))
    initial_response: bytes | None = field(default=None, metadata=_of(bytes))
    hostname: str | None = field(default=None, metadata=_of(str))


@dataclass(frozen=True, kw_only=True)
class SaslOutcome(Composite):
    code = 0x44
    outcome: int = field(metadata=_of(UByte))
    additional_data: bytes | None = field(default=None, metadata=_of(bytes))


FROM_CLIENT: dict[int, type[Composite]] = {
    kind.code: kind for kind in (Open, Begin, Attach, Flow, Transfer, Disposition, Detach, End, Close, SaslInit)
}
