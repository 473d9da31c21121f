"""What a twin section may hold and how patches merge: pure rules, no storage.

The limits are Azure's (`edgeclave.deployment.twin_limits`).

>>> merge({"a": {"b": 1, "c": 2}}, {"a": {"b": None}, "d": 3})
{'a': {'c': 2}, 'd': 3}
>>> difference({"a": {"b": 1, "c": 2}}, {"a": {"c": 2}, "d": 3})
{'a': {'b': None}, 'd': 3}
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from edgeclave.deployment.twin_limits import faults, place, size_bytes
from edgeclave.simulator.hub_errors import HubError, bad_request

Section = dict[str, Any]
_MAYBE_HALF = re.compile(rb"\\u[dD][89a-fA-F]|\xed")  # of a surrogate pair


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


def stamped(metadata: Mapping[str, Any], patch: Mapping[str, Any], stamp: Mapping[str, Any]) -> Section:
    """The metadata of a section after a patch: what it changed has the stamp, and all that holds it.

    >>> stamped({"$at": 1, "a": {"$at": 1, "b": {"$at": 1}}, "c": {"$at": 1}}, {"a": {"d": 5}, "c": None}, {"$at": 2})
    {'$at': 2, 'a': {'$at': 2, 'b': {'$at': 1}, 'd': {'$at': 2}}}
    """
    marked: Section = {**metadata, **stamp}
    for key, value in patch.items():
        if value is None:
            marked.pop(key, None)
        else:
            marked[key] = stamped(marked.get(key, {}), value, stamp) if isinstance(value, Mapping) else dict(stamp)
    return marked


def without_metadata(value: object, where: str) -> Section:
    """The object without $version and $metadata, which clients send back as they got them.

    Raises:
        HubError: 400 when it is not an object.
    """
    if not isinstance(value, dict):
        raise bad_request("must be a JSON object", where=where)
    return {key: below for key, below in value.items() if key not in ("$version", "$metadata")}


def check(value: object, where: str) -> None:
    """Checks keys, values and depth of a section or a patch.

    Raises:
        HubError: 400, naming the property.
    """
    for fault in faults(value):
        raise bad_request(fault.what, where=".".join(filter(None, (where, place(fault.path)))), advice=fault.advice)


def check_size(section: Section, limit_bytes: int, where: str) -> None:
    """Raises HubError 400 `DeviceTwinTooLarge`."""
    size = size_bytes(section)
    if size > limit_bytes:
        raise HubError(400, "DeviceTwinTooLarge", f"has {size} bytes, the limit is {limit_bytes}", where=where)


def dump(value: object) -> str:
    """Compact JSON as stored and sent; ASCII, so that a lone surrogate cannot break it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def load(body: bytes | str, where: str) -> Any:
    """Parses JSON from outside: no NaN, no number beyond all, no half characters, no runaway nesting.

    Raises:
        HubError: 400.
    """
    try:
        value = json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
        if _MAYBE_HALF.search(body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")):
            json.dumps(value, ensure_ascii=False).encode()  # half a character can be escaped, but not sent
    except (ValueError, RecursionError) as error:
        raise bad_request(f"is not JSON: {str(error)[:120]}", where=where) from error
    return value


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
