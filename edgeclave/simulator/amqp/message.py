"""Messages: the sections of part 3, section 3.2, as far as requests, replies and events use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeclave.simulator.amqp.codec import Reader, encode, encode_list
from edgeclave.simulator.amqp.types import DECODE_ERROR, AmqpError, Described, Symbol, ULong

_HEADER, _DELIVERY, _ANNOTATIONS, _PROPERTIES, _APPLICATION, _DATA, _SEQUENCE, _VALUE, _FOOTER = range(0x70, 0x79)
_PROPERTY_NAMES = (
    "message_id",
    "user_id",
    "to",
    "subject",
    "reply_to",
    "correlation_id",
    "content_type",
    "content_encoding",
    "absolute_expiry_time",
)
_SYMBOL_PROPERTIES = {"content_type", "content_encoding"}


@dataclass(frozen=True)
class Message:
    """`properties` uses the names of section 3.2.4 with underscores; the body is `data`, or else `value`."""

    properties: Mapping[str, Any] = field(default_factory=dict)
    application_properties: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, Any] = field(default_factory=dict)
    data: bytes | None = None
    value: Any = None

    def to_bytes(self) -> bytes:
        parts = []
        if self.annotations:
            parts.append(_section(_ANNOTATIONS, encode({Symbol(key): item for key, item in self.annotations.items()})))
        if self.properties:
            parts.append(_section(_PROPERTIES, encode_list([self._property(name) for name in _PROPERTY_NAMES])))
        if self.application_properties:
            parts.append(_section(_APPLICATION, encode(dict(self.application_properties))))
        parts.append(
            _section(_DATA, encode(self.data)) if self.data is not None else _section(_VALUE, encode(self.value))
        )
        return b"".join(parts)

    def _property(self, name: str) -> Any:
        value = self.properties.get(name)
        return Symbol(value) if value is not None and name in _SYMBOL_PROPERTIES else value


def read_message(payload: bytes) -> Message:
    """Sections that are not used here (header, delivery annotations, footer) are read and left out.

    Raises:
        AmqpError: `amqp:decode-error`.
    """
    reader = Reader(payload)
    sections: dict[int, Any] = {}
    data: list[bytes] = []
    while reader.position < len(payload):
        section = reader.value()
        if not isinstance(section, Described) or not isinstance(section.descriptor, int):
            raise AmqpError(DECODE_ERROR, "a message section has no descriptor")
        code = int(section.descriptor)
        if not _HEADER <= code <= _FOOTER or (code in sections and code not in (_DATA, _SEQUENCE)):
            raise AmqpError(DECODE_ERROR, f"message section 0x{code:x} is unknown or there twice")
        sections[code] = section.value
        if code == _DATA:
            data.append(_of_type(section.value, bytes))
    listed = _of_type(sections.get(_PROPERTIES, []), list)
    return Message(
        properties={name: item for name, item in zip(_PROPERTY_NAMES, listed, strict=False) if item is not None},
        application_properties=_of_type(sections.get(_APPLICATION, {}), dict),
        annotations=_of_type(sections.get(_ANNOTATIONS, {}), dict),
        data=b"".join(data) if data else None,
        value=sections.get(_VALUE),
    )


def _section(code: int, body: bytes) -> bytes:
    return b"\x00" + encode(ULong(code)) + body


def _of_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise AmqpError(DECODE_ERROR, f"a message section is not a {kind.__name__}")
    return value
