"""What stands inside messages: structs with exact field types, to and from deterministic CBOR maps.

A field that is missing, unknown, of another type or over its limit refuses the whole map. There are no defaults on the
wire: what a message does not say, it does not mean.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""A SHA-256 digest or a COSE Key Thumbprint."""
Label = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
"""The name of an output or a slot."""
Count = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
"""A sequence number, count, epoch or time in milliseconds; what a double holds exactly, so that JSON may carry it."""
Unsigned16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
RecipientsVersion = tuple[Count, Digest]
"""Version and digest of a recipient set."""

MAX_OUTPUTS = 64
"""Outputs that one trusted application may have."""

_Value = TypeVar("_Value")


def to_map(value: msgspec.Struct) -> dict[str, Any]:
    """The struct as the map that is encoded.

    Raises:
        msgspec.ValidationError: a field does not keep its own rule, so that nobody would accept the message.
    """
    fields: dict[str, Any] = msgspec.to_builtins(value, builtin_types=(bytes,))
    from_map(fields, type(value))
    return fields


def from_map(value: object, kind: type[_Value]) -> _Value:
    """Raises msgspec.ValidationError, naming the field."""
    return msgspec.convert(value, kind, builtin_types=(bytes,))
