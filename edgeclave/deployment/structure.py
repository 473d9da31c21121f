"""Objects written by people against the struct that says what they may hold: every mistake, not only the first."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

import msgspec

from edgeclave.deployment.document import nearest, suggestion
from edgeclave.deployment.findings import Report
from edgeclave.deployment.twin_limits import Path

_PLACE = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_EXPECTED = re.compile(r"Expected `(?P<wanted>[a-z]+)(?: \| null)?`, got `(?P<given>[a-z]+)`")
_ENUM = re.compile(r"Invalid enum value '(?P<given>.*)'", re.DOTALL)
_LIMITED = re.compile(r"Expected `(?P<wanted>[a-z]+)(?: \| null)?` (?P<limit>.*)", re.DOTALL)
_KINDS = {
    "object": "an object",
    "array": "an array",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
}
_QUOTED = {"int": "write the number without quotes", "bool": "write true or false without quotes"}


def check_object(
    value: object, kind: type[msgspec.Struct], path: Path, report: Report, *, any_case: bool = False
) -> bool:
    """Whether the value is right as this struct; field by field, so that each wrong one is found.

    With `any_case` it is of Docker, which gets more fields with each release: a name like none known is a warning.
    """
    if not isinstance(value, dict):
        report.error(path, f"must be an object, not {kind_of(value)}")
        return False
    fields = fields_of(kind)
    names = {given: (member(fields, given) or given) if any_case else given for given in value}
    unknown = [given for given, name in names.items() if name not in fields]
    for given in unknown:
        if any_case and nearest(given, fields) is None:
            what = f"{given!r} is no option of Docker that is known here"
            report.warn(
                (*path, given), what, "an engine that does not know it ignores it", code="unknown-create-option"
            )
        else:
            report.error((*path, given), f"the name {given!r} is not known here", suggestion(given, fields))
    missing = [name for name, field in fields.items() if field.required and name not in names.values()]
    for name in missing:
        if nearest(name, unknown) is None:  # otherwise it was told of as unknown
            report.error(path, f"{name!r} is missing", f"add {name!r}")
    right = [
        check_value(value[given], fields[name].type, (*path, given), report)
        for given, name in names.items()
        if name in fields
    ]
    return all(right) and not unknown and not missing


@functools.cache
def fields_of(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of a struct by the names that stand in JSON."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def member(value: Iterable[str], name: str) -> str | None:
    """The name as it is written there, when case does not count."""
    return next((given for given in value if given.lower() == name.lower()), None)


def check_value(value: object, kind: Any, path: Path, report: Report) -> bool:
    """Whether one value has this type and its limits."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message = str(error)
        if match := _PLACE.search(message):
            path, message = (*path, *_steps(match["path"])), message[: match.start()]
        what, advice = _explained(message, kind)
        if value == "" and not advice:
            advice = "it is empty: fill in its variable in .env"
        report.error(path, what, advice)
        return False
    return True


def kind_of(value: object) -> str:
    if value is None:
        return "null"
    return {bool: "true or false", str: "a text", list: "an array", dict: "an object"}.get(type(value), "a number")


def _explained(message: str, kind: Any) -> tuple[str, str]:
    if match := _EXPECTED.fullmatch(message):
        wanted, given = match["wanted"], match["given"]
        advice = _QUOTED.get(wanted, "") if given == "str" else ""
        if wanted == "str" and given in ("int", "float", "bool"):
            advice = "put it in quotes"
        return f"must be {_KINDS.get(wanted, wanted)}, not {_KINDS.get(given, given)}", advice
    if match := _ENUM.fullmatch(message):
        choices = _choices(kind)
        near = nearest(match["given"], choices)
        return f"{match['given']!r} is none of {', '.join(choices)}", f"did you mean {near!r}?" if near else ""
    if match := _LIMITED.fullmatch(message):
        return f"must be {_described(kind) or _KINDS.get(match['wanted'], match['wanted']) + ' ' + match['limit']}", ""
    return message[:1].lower() + message[1:], ""


def _described(kind: Any) -> str:
    """What the type itself says of its form."""
    return next(
        (part.description for part in get_args(kind) if isinstance(part, msgspec.Meta) and part.description), ""
    )


def _choices(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return [str(each) for each in get_args(kind)]
    return [choice for part in get_args(kind) for choice in _choices(part)]


def _steps(text: str) -> list[str | int]:
    return [int(index) if index else name for name, index in _STEP.findall(text)]
