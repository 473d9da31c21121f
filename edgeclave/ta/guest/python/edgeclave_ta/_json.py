"""JSON text to decoded values and back: only what JSON can hold, and nothing that two readers read differently."""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Any

from ._bounds import Mismatch, shown


def to_json(value: Any) -> str:
    """The JSON text of anything a method may return: dataclasses too. Raises ValueError and TypeError."""
    return json.dumps(plain(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def load(text: str) -> Any:
    """Decodes JSON, and nothing else: Python would take NaN and Infinity too, and of two members of one name the last.

    Raises ValueError; Mismatch for two members of one name.
    """
    return _DECODER.decode(text)


def plain(value: Any) -> Any:
    """The same value as dicts, lists, text and numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(members)
    if len(read) < len(members):
        read.clear()
        for name, value in members:
            if name in read:
                raise Mismatch("", f'an object has two members named "{shown(name)}"')
            read[name] = value
    return read


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)
