"""The desired properties as the hub means them: a full read, then patches on top (JSON merge patch, RFC 7396).

>>> desired = DesiredProperties()
>>> desired.replace({"a": 1, "b": {"c": 2}, "$version": 4})
>>> desired.apply({"b": {"c": None, "d": 3}, "$version": 5})
<PatchOutcome.MERGED: 'merged'>
>>> desired.value
{'a': 1, 'b': {'d': 3}}
>>> desired.apply({"a": 9, "$version": 7})
<PatchOutcome.GAP: 'gap'>
"""

from __future__ import annotations

import copy
import enum
from typing import Any

MAX_DEPTH = 32  # IoT Hub allows 10; deeper input is cut off instead of recursed into


class PatchOutcome(enum.Enum):
    """What became of a patch."""

    MERGED = "merged"
    OLD = "old"
    GAP = "gap"
    """Patches were missed: the twin has to be read again."""


class DesiredProperties:
    """The last known desired properties, without IoT Hub's `$` members."""

    def __init__(self) -> None:
        self._value: dict[str, Any] = {}
        self._version: int | None = None

    @property
    def value(self) -> dict[str, Any]:
        """A copy that the caller may keep or change."""
        return copy.deepcopy(self._value)

    @property
    def version(self) -> int | None:
        """`$version` of the last read or patch; None before the first."""
        return self._version

    def replace(self, desired: object) -> None:
        """Takes a full read. Anything but an object counts as empty."""
        members = desired if isinstance(desired, dict) else {}
        self._version = _version_of(members)
        self._value = _without_hub_members(members)

    def apply(self, patch: object) -> PatchOutcome:
        """Merges a patch if it is the next one; does nothing with an old one or one that came too soon."""
        version = _version_of(patch) if isinstance(patch, dict) else None
        if version is None or self._version is None:
            return PatchOutcome.GAP
        if version <= self._version:
            return PatchOutcome.OLD
        if version != self._version + 1:
            return PatchOutcome.GAP
        assert isinstance(patch, dict)
        self._value = merge(self._value, _without_hub_members(patch))
        self._version = version
        return PatchOutcome.MERGED


def merge(target: Any, patch: Any, depth: int = 0) -> Any:
    """JSON merge patch (RFC 7396): null removes, objects merge, anything else replaces."""
    if not isinstance(patch, dict) or depth >= MAX_DEPTH:
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value, depth + 1)
    return merged


def _version_of(members: dict[str, Any]) -> int | None:
    version = members.get("$version")
    return version if type(version) is int else None


def _without_hub_members(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if not name.startswith("$")}
