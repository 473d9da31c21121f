"""Encoding and decoding of AMQP 1.0 values (part 1, section 1.6), with limits on everything a peer can choose.

>>> decode(encode({"credit": UInt(300)}))
{'credit': 300}
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from typing import Any

from edgeclave.simulator.amqp.types import (
    DECODE_ERROR,
    AmqpError,
    Array,
    Byte,
    Char,
    Decimal,
    Described,
    Float,
    Int,
    Integer,
    Long,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
)

MAX_DEPTH = 16  # nesting of lists, maps, arrays and described values
MAX_ELEMENTS = 65_536  # values in one top-level value, all levels together

_FIXED: dict[type[Integer], tuple[int, struct.Struct]] = {
    UByte: (0x50, struct.Struct(">B")),
    UShort: (0x60, struct.Struct(">H")),
    UInt: (0x70, struct.Struct(">I")),
    ULong: (0x80, struct.Struct(">Q")),
    Byte: (0x51, struct.Struct(">b")),
    Short: (0x61, struct.Struct(">h")),
    Int: (0x71, struct.Struct(">i")),
    Long: (0x81, struct.Struct(">q")),
    Timestamp: (0x83, struct.Struct(">q")),
}
_SMALL_ULONG = 0x53
_DOUBLE, _FLOAT = struct.Struct(">d"), struct.Struct(">f")
_LENGTH = struct.Struct(">I")
_VARIABLE = {bytes: (0xA0, 0xB0), str: (0xA1, 0xB1), Symbol: (0xA3, 0xB3)}
_DECIMAL_CODES = {4: 0x74, 8: 0x84, 16: 0x94}


def encode(value: Any) -> bytes:
    """One value with its constructor.

    Raises:
        TypeError: for what AMQP has no type for.
        ValueError: for an array of mixed types.
    """
    code, body = _encode(value)
    return bytes([code]) + body if code else body


def encode_list(values: list[Any]) -> bytes:
    """A list that is never the zero-width form: azure-eventhub's decoder knows list8 and list32 only in frames."""
    return _compound(0xC0, 0xD0, len(values), b"".join(map(encode, values)))


def _encode(value: Any) -> tuple[int, bytes]:
    """(constructor, data); constructor 0 means that the data begins with a descriptor and is complete."""
    if value is None:
        return 0x40, b""
    if isinstance(value, bool):
        return (0x41 if value else 0x42), b""
    if isinstance(value, ULong) and value <= 0xFF:
        return _SMALL_ULONG, bytes([value])
    if isinstance(value, int):
        code, fixed = _FIXED[type(value) if isinstance(value, Integer) else Long]
        return code, fixed.pack(value if isinstance(value, Integer) else Long(value))
    if isinstance(value, float):
        return (0x72, _FLOAT.pack(value)) if isinstance(value, Float) else (0x82, _DOUBLE.pack(value))
    if isinstance(value, Char):
        return 0x73, _LENGTH.pack(ord(value))
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        return _variable(value)
    if isinstance(value, uuid.UUID):
        return 0x98, value.bytes
    if isinstance(value, Decimal):
        return _DECIMAL_CODES[len(value.data)], value.data
    if isinstance(value, list):
        whole = encode_list(value)
        return whole[0], whole[1:]
    if isinstance(value, dict):
        whole = _compound(0xC1, 0xD1, 2 * len(value), b"".join(encode(k) + encode(v) for k, v in value.items()))
        return whole[0], whole[1:]
    if isinstance(value, Described):
        return 0, b"\x00" + encode(value.descriptor) + encode(value.value)
    if isinstance(value, Array):
        return 0xF0, _array(value)
    raise TypeError(f"AMQP has no type for {type(value).__name__}")


def _variable(value: str | bytes | bytearray | memoryview, *, small: bool = True) -> tuple[int, bytes]:
    kind = Symbol if isinstance(value, Symbol) else str if isinstance(value, str) else bytes
    data = value.encode("ascii" if kind is Symbol else "utf-8") if isinstance(value, str) else bytes(value)
    code_small, code_large = _VARIABLE[kind]
    if small and len(data) <= 0xFF:
        return code_small, bytes([len(data)]) + data
    return code_large, _LENGTH.pack(len(data)) + data


def _compound(code_small: int, code_large: int, count: int, body: bytes) -> bytes:
    if count <= 0xFF and len(body) < 0xFF:
        return bytes([code_small, len(body) + 1, count]) + body
    return bytes([code_large]) + _LENGTH.pack(len(body) + 4) + _LENGTH.pack(count) + body


def _array(array: Array) -> bytes:
    encoded = [_element(item) for item in array.items]
    codes = {code for code, _ in encoded} or {0x40}
    if len(codes) > 1 or 0 in codes:
        raise ValueError("an array holds values of one type, and none with a descriptor")
    body = bytes(codes) + b"".join(data for _, data in encoded)
    return _LENGTH.pack(len(body) + 4) + _LENGTH.pack(len(encoded)) + body


def _element(value: Any) -> tuple[int, bytes]:
    """One constructor serves all elements, so each must be of the wide form."""
    if isinstance(value, bool):
        return 0x56, bytes([value])
    if isinstance(value, ULong):
        return 0x80, _FIXED[ULong][1].pack(value)
    if isinstance(value, (str, bytes)) and not isinstance(value, Char):
        return _variable(value, small=False)
    if isinstance(value, (list, dict)):
        items = value if isinstance(value, list) else [part for pair in value.items() for part in pair]
        body = b"".join(map(encode, items))
        return (0xD0 if isinstance(value, list) else 0xD1), (
            _LENGTH.pack(len(body) + 4) + _LENGTH.pack(len(items)) + body
        )
    return _encode(value)


def decode(data: bytes | memoryview) -> Any:
    """Exactly one value.

    Raises:
        AmqpError: `amqp:decode-error` for anything malformed, over a limit, or followed by more bytes.
    """
    reader = Reader(data)
    value = reader.value()
    if reader.position != len(data):
        raise AmqpError(DECODE_ERROR, "bytes follow the value")
    return value


def _integer(kind: type[Integer]) -> Callable[[Reader], Integer]:
    fixed = _FIXED[kind][1]
    return lambda reader: kind(fixed.unpack(reader.take(fixed.size))[0])


def _small(kind: type[Integer], signed: bool) -> Callable[[Reader], Integer]:
    return lambda reader: kind(int.from_bytes(reader.take(1), "big", signed=signed))


class Reader:
    """A cursor over untrusted bytes. `position` is where the next value begins."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self.position = 0
        self._depth = 0
        self._elements = 0

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self._data):
            raise AmqpError(DECODE_ERROR, "a value ends before its declared size")
        taken = bytes(self._data[self.position : end])
        self.position = end
        return taken

    def value(self) -> Any:
        """The next value; raises AmqpError `amqp:decode-error`."""
        return self._of(self.take(1)[0])

    def _of(self, code: int) -> Any:
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise AmqpError(DECODE_ERROR, f"more than {MAX_ELEMENTS} values in one")
        decoder = _DECODERS.get(code)
        if decoder is None:
            raise AmqpError(DECODE_ERROR, f"unknown constructor 0x{code:02x}")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise AmqpError(DECODE_ERROR, f"values nested deeper than {MAX_DEPTH}")
        try:
            return decoder(self)
        except (ValueError, OverflowError) as error:
            raise AmqpError(DECODE_ERROR, f"constructor 0x{code:02x} holds no such value") from error
        finally:
            self._depth -= 1

    def length(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def described(self) -> Described:
        return Described(self.value(), self.value())

    def boolean(self) -> bool:
        octet = self.take(1)[0]
        if octet > 1:
            raise AmqpError(DECODE_ERROR, "a boolean is neither 0 nor 1")
        return bool(octet)

    def list(self, width: int) -> list[Any]:
        end, count = self._compound(width)
        values = [self.value() for _ in range(count)]
        self._must_end(end)
        return values

    def map(self, width: int) -> dict[Any, Any]:
        end, count = self._compound(width)
        values: dict[Any, Any] = {}
        for _ in range(count // 2):
            key = self.value()
            if isinstance(key, (list, dict, Described, Array)) or key in values:
                raise AmqpError(DECODE_ERROR, "a map has a key twice or a compound key")
            values[key] = self.value()
        if count % 2:
            raise AmqpError(DECODE_ERROR, "a map has a key without a value")
        self._must_end(end)
        return values

    def array(self, width: int) -> Array:
        end, count = self._compound(width)
        code = self.take(1)[0]
        if code == 0:
            raise AmqpError(DECODE_ERROR, "arrays of described values are not supported")
        values = [self._of(code) for _ in range(count)]
        self._must_end(end)
        return Array(values)

    def _compound(self, width: int) -> tuple[int, int]:
        size = self.length(width)
        end = self.position + size
        if end > len(self._data):
            raise AmqpError(DECODE_ERROR, "a compound value is larger than what is there")
        count = self.length(width)
        if count > MAX_ELEMENTS:
            raise AmqpError(DECODE_ERROR, f"more than {MAX_ELEMENTS} values in one")
        return end, count

    def _must_end(self, end: int) -> None:
        if self.position != end:
            raise AmqpError(DECODE_ERROR, "a compound value does not end where it says")


def _binary(width: int) -> Callable[[Reader], bytes]:
    return lambda reader: reader.take(reader.length(width))


def _text(width: int) -> Callable[[Reader], str]:
    return lambda reader: reader.take(reader.length(width)).decode("utf-8")


def _symbol(width: int) -> Callable[[Reader], Symbol]:
    return lambda reader: Symbol(reader.take(reader.length(width)).decode("ascii"))


def _decimal(size: int) -> Callable[[Reader], Decimal]:
    return lambda reader: Decimal(reader.take(size))


_DECODERS: dict[int, Callable[[Reader], Any]] = {
    0x00: Reader.described,
    0x40: lambda reader: None,
    0x41: lambda reader: True,
    0x42: lambda reader: False,
    0x43: lambda reader: UInt(0),
    0x44: lambda reader: ULong(0),
    0x45: lambda reader: [],
    0x52: _small(UInt, signed=False),
    0x53: _small(ULong, signed=False),
    0x54: _small(Int, signed=True),
    0x55: _small(Long, signed=True),
    0x56: Reader.boolean,
    0x72: lambda reader: Float(_FLOAT.unpack(reader.take(4))[0]),
    0x73: lambda reader: Char(chr(reader.length(4))),
    0x82: lambda reader: _DOUBLE.unpack(reader.take(8))[0],
    0x98: lambda reader: uuid.UUID(bytes=reader.take(16)),
    0xA0: _binary(1),
    0xB0: _binary(4),
    0xA1: _text(1),
    0xB1: _text(4),
    0xA3: _symbol(1),
    0xB3: _symbol(4),
    0xC0: lambda reader: reader.list(1),
    0xD0: lambda reader: reader.list(4),
    0xC1: lambda reader: reader.map(1),
    0xD1: lambda reader: reader.map(4),
    0xE0: lambda reader: reader.array(1),
    0xF0: lambda reader: reader.array(4),
    **{code: _integer(kind) for kind, (code, _) in _FIXED.items()},
    **{code: _decimal(size) for size, code in _DECIMAL_CODES.items()},
}
