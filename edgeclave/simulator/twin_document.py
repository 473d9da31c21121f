"""What a twin section may hold and how patches merge: pure rules, no storage.

Limits are Azure's (IoT Hub developer guide, device twins): 8 KB of tags, 32 KB of desired and of reported properties,
depth 10, keys of 1 KB, strings of 4 KB, integers of 53 bits.

>>> merge({"a": {"b": 1, "c": 2}}, {"a": {"b": None}, "d": 3})
{'a': {'c': 2}, 'd': 3}
>>> difference({"a": {"b": 1, "c": 2}}, {"a": {"c": 2}, "d": 3})
{'a': {'b': None}, 'd': 3}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from edgeclave.simulator.hub_errors import HubError, bad_request

Section = dict[str, Any]

MAX_PROPERTIES_BYTES = 32 * 1024
MAX_TAGS_BYTES = 8 * 1024
MAX_DEPTH = 10
MAX_KEY_BYTES = 1024
MAX_STRING_BYTES = 4096
MAX_INTEGER = 4503599627370495
MIN_INTEGER = -4503599627370496
_FORBIDDEN_IN_KEY = re.compile(r"[\x00-\x1f\x7f-\x9f.$ ]")


def merge(section: Mapping[str, Any], patch: Mapping[str, Any]) -> Section:
    """A merge patch in IoT Hub's way: null removes, objects merge, everything else replaces."""
    merged: Section = dict(section)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Section:
    """The patch that turns `old` into `new`; empty when they are equal."""
    patch: Section = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if below := difference(before, value):
                patch[key] = below
        elif key not in old or before != value or type(before) is not type(value):
            patch[key] = value
    return patch


def without_metadata(value: object, where: str) -> Section:
    """The object without $version and $metadata, which clients send back as they got them.

    Raises:
        HubError: 400 when it is not an object.
    """
    if not isinstance(value, dict):
        raise bad_request("must be a JSON object", where=where)
    return {key: below for key, below in value.items() if key not in ("$version", "$metadata")}


def check(value: object, where: str, *, depth: int = 1) -> None:
    """Checks keys, values and depth of a section or a patch.

    Raises:
        HubError: 400, naming the property.
    """
    if isinstance(value, dict):
        if depth > MAX_DEPTH:
            raise bad_request(f"is nested deeper than {MAX_DEPTH} levels", where=where)
        for key, below in value.items():
            if not key or len(key.encode()) > MAX_KEY_BYTES or _FORBIDDEN_IN_KEY.search(key):
                raise bad_request(
                    f"{key[:80]!r} is not a property name",
                    where=where,
                    advice="names have at most 1 KB and no control characters, dots, $ or spaces",
                )
            check(below, f"{where}.{key[:80]}", depth=depth + 1)
    elif isinstance(value, list):
        if depth > MAX_DEPTH:
            raise bad_request(f"is nested deeper than {MAX_DEPTH} levels", where=where)
        for index, below in enumerate(value):
            check(below, f"{where}[{index}]", depth=depth + 1)
    else:
        _check_scalar(value, where)


def _check_scalar(value: object, where: str) -> None:
    if isinstance(value, str) and len(value.encode(errors="surrogatepass")) > MAX_STRING_BYTES:
        raise bad_request(f"is a string over {MAX_STRING_BYTES} bytes", where=where)
    if isinstance(value, int) and not isinstance(value, bool) and not MIN_INTEGER <= value <= MAX_INTEGER:
        raise bad_request("is an integer outside the 53 bits a twin can hold", where=where)


def check_size(section: Section, limit_bytes: int, where: str) -> None:
    """Raises HubError 400 `TwinTooLarge`-like when the section is over its limit as compact JSON."""
    size = len(dump(section).encode())
    if size > limit_bytes:
        raise HubError(400, "DeviceTwinTooLarge", f"has {size} bytes, the limit is {limit_bytes}", where=where)


def dump(value: object) -> str:
    """Compact JSON as stored and sent; ASCII, so that a lone surrogate cannot break it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def load(body: bytes | str, where: str) -> Any:
    """Parses JSON from outside: no NaN, no duplicate nonsense, no runaway nesting.

    Raises:
        HubError: 400.
    """
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"is not JSON: {str(error)[:120]}", where=where) from error


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
