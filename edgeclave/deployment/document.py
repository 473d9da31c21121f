"""JSON written by people: every mistake with its line, unknown names with the one that was probably meant."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from edgeclave.errors import ConfigurationError

MAX_SHOWN_NAMES = 30  # more would hide what was wrong
Kind = TypeVar("Kind", bound=msgspec.Struct)
_UNKNOWN_FIELD = re.compile(r"contains unknown field `(?P<field>[^`]*)`")
_PLACE = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.[^.\[]+|\[[^\]]*\]")


def read_json(text: str, where: str) -> Any:
    """Strict JSON without repeated names.

    Raises:
        ConfigurationError: `bad-json` with line and column, `repeated-name`.
    """
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, where))
    except json.JSONDecodeError as error:
        lines = text.splitlines()
        line = lines[error.lineno - 1].strip()[:80] if error.lineno <= len(lines) else ""
        raise ConfigurationError(
            "bad-json",
            f"not JSON: {error.msg}, near {line!r}",
            where=f"{where}, line {error.lineno}, column {error.colno}",
            advice="look for a missing or extra comma, quote or bracket there, or just before it",
        ) from error
    except RecursionError as error:
        raise ConfigurationError("bad-json", "is nested too deeply", where=where) from error


def convert(value: object, kind: type[Kind], where: str, *, code: str = "bad-deployment") -> Kind:
    """The value as a struct.

    Raises:
        ConfigurationError: `code`, naming the field.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message = str(error)
        path = ""
        if match := _PLACE.search(message):
            path, message = match["path"], message[: match.start()]
        advice = ""
        if match := _UNKNOWN_FIELD.search(message):
            message = f"the name {match['field']!r} is not known here"
            advice = suggestion(match["field"], field_types(_type_at(kind, path)))
        elif "enum value" in message:
            parent, _, name = path.rpartition(".")
            advice = f"use one of {', '.join(map(str, _choices(field_types(_type_at(kind, parent)).get(name))))}"
        raise ConfigurationError(code, message, where=where + path, advice=advice) from error


def expect_object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad(f"must be an object, not {_kind(value)}", where)
    return value


def require(value: dict[str, Any], name: str, where: str) -> Any:
    """A member that must be there."""
    if name not in value:
        close = difflib.get_close_matches(name, value, 1)
        advice = f"{close[0]!r} is there: was {name!r} meant?" if close else f"add {name!r}"
        raise bad(f"{name!r} is missing", where, advice=advice)
    return value[name]


def suggestion(given: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(given, known, 1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(known)}" if len(known) <= MAX_SHOWN_NAMES else "remove it"


def bad(what: str, where: str, *, advice: str = "") -> ConfigurationError:
    return ConfigurationError("bad-deployment", what, where=where, advice=advice)


def _type_at(kind: Any, path: str) -> Any:
    """The type of what stands at a path as msgspec writes it: `.name`, `[0]` and `[...]`."""
    for name in _STEP.findall(path):
        if name.startswith("["):
            kind = next((get_args(each)[-1] for each in alternatives(kind) if get_args(each)), None)
        else:
            kind = field_types(kind).get(name[1:])
    return kind


def field_types(kind: Any) -> dict[str, Any]:
    """Names and types of a struct's fields as they stand in JSON; empty for what is no struct."""
    for each in alternatives(kind):
        if isinstance(each, type) and issubclass(each, msgspec.Struct):
            return {field.encode_name: field.type for field in msgspec.structs.fields(each)}
    return {}


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _choices(kind: Any) -> tuple[Any, ...]:
    return next((get_args(each) for each in alternatives(kind) if get_origin(each) is Literal), ())


def _object(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise ConfigurationError(
                "repeated-name", f"the name {name!r} stands twice in one object", where=where, advice="remove one"
            )
        made[name] = value
    return made


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return {bool: "true or false", str: "a text", list: "an array"}.get(type(value), "a number")
