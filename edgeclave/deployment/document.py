"""Objects written by people: what is wrong with them, and the name that was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, TypeVar, get_args

import msgspec

from edgeclave.errors import ConfigurationError

Kind = TypeVar("Kind", bound=msgspec.Struct)
_UNKNOWN_FIELD = re.compile(r"contains unknown field `(?P<field>[^`]*)`")
_PLACE = re.compile(r" - at `\$(?P<path>[^`]*)`$")


def convert(value: object, kind: type[Kind], where: str) -> Kind:
    """The value as a struct.

    Raises:
        ConfigurationError: `bad-deployment` naming the field.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message = str(error)
        place = where
        if match := _PLACE.search(message):
            place, message = where + match["path"], message[: match.start()]
        advice = ""
        if match := _UNKNOWN_FIELD.search(message):
            known = [field.encode_name for field in msgspec.structs.fields(kind)]
            message = f"the name {match['field']!r} is not known here"
            advice = suggestion(match["field"], known)
        elif "enum value" in message:
            advice = _choices(kind, place.rpartition(".")[2])
        raise bad(message, place, advice=advice) from error


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


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The name that was probably meant; None when none is like it."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), by_lower, 1)
    if close:
        return by_lower[close[0]]
    return next((by_lower[name] for name in by_lower if len(given) > 2 and name.startswith(given.lower())), None)


def suggestion(given: str, known: Iterable[str]) -> str:
    known = list(known)
    near = nearest(given, known)
    return f"did you mean {near!r}?" if near else f"known here: {', '.join(known)}"


def bad(what: str, where: str, *, advice: str = "") -> ConfigurationError:
    return ConfigurationError("bad-deployment", what, where=where, advice=advice)


def _choices(kind: type[msgspec.Struct], name: str) -> str:
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    return f"use one of {', '.join(map(str, get_args(fields.get(name))))}"


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return {bool: "true or false", str: "a text", list: "an array"}.get(type(value), "a number")
