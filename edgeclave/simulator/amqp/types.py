"""AMQP 1.0 values in Python (OASIS AMQP 1.0 part 1).

Where Python has one type for many of AMQP's, a subclass names the one meant: `UInt(5)` is 5 and stays a uint on the
wire. A plain int is a long, a plain float a double, a plain str a string, bytes are binary, list and dict are list and
map, and None, bool and uuid.UUID are themselves.

>>> UInt(5) == 5
True
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class AmqpError(Exception):
    """A peer broke the protocol or asked for what it cannot have; `condition` is what AMQP calls it on the wire.

    `description` goes back to the peer and into the log, so it never holds a token or a key.
    """

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(condition, description)
        self.condition = condition
        self.description = description


DECODE_ERROR = "amqp:decode-error"
FRAMING_ERROR = "amqp:connection:framing-error"
FRAME_SIZE_TOO_SMALL = "amqp:frame-size-too-small"
NOT_FOUND = "amqp:not-found"
UNAUTHORIZED = "amqp:unauthorized-access"
NOT_ALLOWED = "amqp:not-allowed"
NOT_IMPLEMENTED = "amqp:not-implemented"
RESOURCE_LIMIT = "amqp:resource-limit-exceeded"
CONNECTION_FORCED = "amqp:connection:forced"
INVALID_FIELD = "amqp:invalid-field"
UNATTACHED_HANDLE = "amqp:session:unattached-handle"
HANDLE_IN_USE = "amqp:session:handle-in-use"
STOLEN = "amqp:link:stolen"
MESSAGE_TOO_LARGE = "amqp:link:message-size-exceeded"


class Integer(int):
    """An int with a width and a sign; out of range is refused where the value is made."""

    minimum: ClassVar[int]
    maximum: ClassVar[int]

    def __new__(cls, value: int) -> Integer:
        if not cls.minimum <= value <= cls.maximum:
            raise ValueError(f"{value} does not fit into {cls.__name__}")
        return super().__new__(cls, value)


class UByte(Integer):
    minimum, maximum = 0, 0xFF


class UShort(Integer):
    minimum, maximum = 0, 0xFFFF


class UInt(Integer):
    minimum, maximum = 0, 0xFFFF_FFFF


class ULong(Integer):
    minimum, maximum = 0, 0xFFFF_FFFF_FFFF_FFFF


class Byte(Integer):
    minimum, maximum = -0x80, 0x7F


class Short(Integer):
    minimum, maximum = -0x8000, 0x7FFF


class Int(Integer):
    minimum, maximum = -0x8000_0000, 0x7FFF_FFFF


class Long(Integer):
    minimum, maximum = -0x8000_0000_0000_0000, 0x7FFF_FFFF_FFFF_FFFF


class Timestamp(Long):
    """Milliseconds since 1970-01-01T00:00:00Z."""


class Float(float):
    """32 bits; a plain float is a double."""


class Symbol(str):
    """ASCII text from a known domain: keys of annotations, conditions, mechanisms."""

    __slots__ = ()


class Char(str):
    """One Unicode character."""

    __slots__ = ()


@dataclass(frozen=True)
class Decimal:
    """decimal32, decimal64 or decimal128 as it stood on the wire (4, 8 or 16 bytes); nothing here computes with it."""

    data: bytes


@dataclass(frozen=True)
class Array:
    """Values of one type."""

    items: Sequence[Any]


@dataclass(frozen=True)
class Described:
    """A value with a descriptor: a symbol, or a ulong for what the standard defines."""

    descriptor: Any
    value: Any
