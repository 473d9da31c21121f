"""JSON into the types that a method declares, and back. What does not fit is named by its path.

Understood are None, bool, int, float, str, Literal, Enum, Union and Optional, list, tuple, dict with text keys,
dataclasses, TypedDicts, Any, and `Annotated` with `Range` and `Length`. Nothing is converted on the way: "1" is no
number, 1.0 no int, True no int; only a whole number is taken for a float. Unknown fields are refused. A dataclass may
check itself in `__post_init__` and raise ValueError.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import json
import math
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar, Union

from ._bounds import Length, Mismatch, Range, shown
from ._json import load

_Value = TypeVar("_Value")
Converter = Callable[[Any, str], Any]
"""From decoded JSON and its path to the declared type. Raises Mismatch."""


def from_json(kind: type[_Value], text: str) -> _Value:
    """Reads JSON text as `kind`, as from trusted storage. Raises ValueError, with the path of what is wrong."""
    value: _Value = converter(kind)(load(text), "")
    return value


def converter(kind: Any) -> Converter:
    """Raises TypeError for a type that JSON cannot be read as."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if origin is typing.Annotated:
        return _annotated(converter(arguments[0]), kind.__metadata__)
    if origin is Literal:
        return _literal(arguments)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if kind in _LISTS or origin in _LISTS:
        return _list(converter(arguments[0] if arguments else Any))
    if origin is tuple:
        return _tuple(arguments)
    if kind in _DICTS or origin in _DICTS:
        if arguments and arguments[0] is not str:
            raise TypeError(f"the keys of a JSON object are text, not {arguments[0]}")
        return _dict(converter(arguments[1] if arguments else Any))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _enum(kind)
    if isinstance(kind, type) and (dataclasses.is_dataclass(kind) or typing.is_typeddict(kind)):
        return _Record.of(kind)
    raise TypeError(f"JSON cannot be read as {kind}")


def _anything(value: Any, path: str) -> Any:
    """What JSON can hold. Python would read 1e400 as infinity, and half a character as text."""
    check = _CHECKS.get(type(value))
    return value if check is None else check(value, path)


def _none(value: Any, path: str) -> None:
    if value is not None:
        raise _wrong(path, "null", value)


def _bool(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(path, "true or false", value)
    return value


def _int(value: Any, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(path, "a whole number", value)
    return value


def _float(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(path, "a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Mismatch(path, "must be a number that a float can hold")
    return number


def _str(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _wrong(path, "text", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Mismatch(path, "must be Unicode text") from None
    return value


def _annotated(inner: Converter, metadata: tuple[Any, ...]) -> Converter:
    rules = [rule for rule in metadata if isinstance(rule, Range | Length)]

    def convert(value: Any, path: str) -> Any:
        converted = inner(value, path)
        for rule in rules:
            rule.check(converted, path)
        return converted

    return convert if rules else inner


def _literal(choices: tuple[Any, ...]) -> Converter:
    def convert(value: Any, path: str) -> Any:
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return value
        raise Mismatch(path, f"must be {_listed(choices)}")

    return convert


def _enum(kind: type[enum.Enum]) -> Converter:
    members = {member.value: member for member in kind}
    if not all(isinstance(value, str | int) for value in members):
        raise TypeError(f"the values of {kind} must be text or whole numbers")
    literal = _literal(tuple(members))
    return lambda value, path: members[literal(value, path)]


def _union(kinds: tuple[Any, ...]) -> Converter:
    inner = [converter(kind) for kind in kinds]

    def convert(value: Any, path: str) -> Any:
        reasons = []
        for each in inner:
            try:
                return each(value, path)
            except Mismatch as mismatch:
                reasons.append(mismatch)
        # The member that got furthest is the one that was meant.
        raise max(reasons, key=lambda reason: (len(reason.path), reason.path != path))

    return convert


def _list(inner: Converter) -> Converter:
    def convert(value: Any, path: str) -> list[Any]:
        if not isinstance(value, list):
            raise _wrong(path, "a list", value)
        return [inner(item, f"{path}[{index}]") for index, item in enumerate(value)]

    return convert


def _tuple(kinds: tuple[Any, ...]) -> Converter:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        items = _list(converter(kinds[0]))
        return lambda value, path: tuple(items(value, path))
    inner = [converter(kind) for kind in kinds]

    def convert(value: Any, path: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(inner):
            raise Mismatch(path, f"must be a list of {len(inner)}")
        return tuple(each(item, f"{path}[{i}]") for i, (each, item) in enumerate(zip(inner, value, strict=True)))

    return convert


def _dict(inner: Converter) -> Converter:
    def convert(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong(path, "an object", value)
        return {_str(key, path): inner(item, _at(path, key)) for key, item in value.items()}

    return convert


class _Record:
    """A dataclass or a TypedDict. One for each class, made before its fields, which may name the class again."""

    _known: typing.ClassVar[dict[type, _Record]] = {}

    def __init__(self, kind: type) -> None:
        self._kind = kind
        self._fields: dict[str, Converter] = {}
        self._required: set[str] = set()

    @classmethod
    def of(cls, kind: type) -> _Record:
        record = cls._known.get(kind)
        if record is None:
            record = cls._known[kind] = cls(kind)
            try:
                record._learn()
            except BaseException:
                del cls._known[kind]
                raise
        return record

    def __call__(self, value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise _wrong(path, "an object", value)
        for name in value:
            if name not in self._fields:
                raise Mismatch(_at(path, name), "is no field here")
        for name in self._fields:
            if name in self._required and name not in value:
                raise Mismatch(_at(path, name), "is missing")
        fields = {name: self._fields[name](item, _at(path, name)) for name, item in value.items()}
        if typing.is_typeddict(self._kind):
            return fields
        try:
            return self._kind(**fields)
        except Mismatch:
            raise
        except ValueError as error:
            raise Mismatch(path, str(error)) from None

    def _learn(self) -> None:
        hints = typing.get_type_hints(self._kind, include_extras=True)
        if typing.is_typeddict(self._kind):
            for name, hint in hints.items():
                marked = typing.get_origin(hint)
                is_marked = marked in (typing.Required, typing.NotRequired)
                self._fields[name] = converter(typing.get_args(hint)[0] if is_marked else hint)
                if marked is typing.Required or (not is_marked and name in self._kind.__required_keys__):  # type: ignore[attr-defined]
                    self._required.add(name)
            return
        for field in dataclasses.fields(self._kind):
            if field.init:
                self._fields[field.name] = converter(hints[field.name])
                if field.default is field.default_factory is dataclasses.MISSING:
                    self._required.add(field.name)
        try:
            inspect.signature(self._kind).bind(**dict.fromkeys(self._required))
        except TypeError as error:  # an InitVar, or an __init__ of its own
            raise TypeError(f"{self._kind} cannot be made of its fields: {error}") from None


_SCALARS: dict[Any, Converter] = {
    Any: _anything,
    object: _anything,
    None: _none,
    type(None): _none,
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
}
_CHECKS: dict[type, Converter] = {float: _float, str: _str, list: _list(_anything), dict: _dict(_anything)}
_LISTS = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_NAMES = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}


def _wrong(path: str, expected: str, value: Any) -> Mismatch:
    """Says what kind of value it was, never which: it may be a secret."""
    found = "null" if value is None else _NAMES.get(type(value), type(value).__name__)
    found = "a fraction" if isinstance(value, float) and expected == "a whole number" else found
    return Mismatch(path, f"must be {expected}, not {found}")


def _listed(choices: tuple[Any, ...]) -> str:
    *others, last = (json.dumps(choice) for choice in choices)
    return f"{', '.join(others)} or {last}" if others else last


def _at(path: str, name: str) -> str:
    return f"{path}.{shown(name)}" if path else shown(name)
