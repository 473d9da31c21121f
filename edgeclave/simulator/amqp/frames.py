"""Frames and protocol headers on a byte stream (part 2, sections 2.2 and 2.3)."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass

from edgeclave.simulator.amqp.codec import Reader
from edgeclave.simulator.amqp.performatives import FROM_CLIENT, Composite
from edgeclave.simulator.amqp.types import (
    DECODE_ERROR,
    FRAMING_ERROR,
    NOT_IMPLEMENTED,
    AmqpError,
    Described,
)

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
MAX_FRAME_BYTES = 65_536  # what this side accepts; peers announce their own limit in open
EMPTY_FRAME = b"\x00\x00\x00\x08\x02\x00\x00\x00"
AMQP_FRAME, SASL_FRAME = 0, 1
_HEADER = struct.Struct(">IBBH")
_SMALLEST_DATA_OFFSET = 2  # in words of four bytes


@dataclass(frozen=True)
class Frame:
    """A performative with what followed it; `performative` is None in an empty frame, a heartbeat."""

    kind: int
    channel: int
    performative: Composite | None
    payload: bytes = b""


def pack(performative: Composite, channel: int, payload: bytes | memoryview = b"", *, kind: int = AMQP_FRAME) -> bytes:
    body = performative.to_bytes()
    size = _HEADER.size + len(body) + len(payload)
    return b"".join((_HEADER.pack(size, _SMALLEST_DATA_OFFSET, kind, channel), body, payload))


async def read_header(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(8)


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """The next frame.

    Raises:
        AmqpError: `amqp:connection:framing-error` for sizes out of bounds, `amqp:decode-error` for the body.
        asyncio.IncompleteReadError: the peer is gone.
    """
    size, data_offset, kind, channel = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    start = data_offset * 4
    if not _HEADER.size <= start <= size <= MAX_FRAME_BYTES or kind not in (AMQP_FRAME, SASL_FRAME):
        raise AmqpError(FRAMING_ERROR, f"a frame of {size} bytes, offset {start}, type {kind} is not acceptable")
    content = await reader.readexactly(size - _HEADER.size)
    return parse(kind, channel, content[start - _HEADER.size :])


def parse(kind: int, channel: int, body: bytes) -> Frame:
    """A frame body after its extended header; raises AmqpError."""
    if not body:
        return Frame(kind, channel, None)
    reader = Reader(body)
    value = reader.value()
    if not isinstance(value, Described):
        raise AmqpError(DECODE_ERROR, "a frame body is not a described list")
    composite = FROM_CLIENT.get(value.descriptor) if isinstance(value.descriptor, int) else None
    if composite is None:
        raise AmqpError(NOT_IMPLEMENTED, "a frame with an unknown performative")
    return Frame(kind, channel, composite.from_value(value), body[reader.position :])
