"""Reference values: which measured code a relying party accepts. Values that compose, and say what differs.

>>> first = Reference({"mrsigner": b"s" * 32, "isvprodid": 1, "minimum_isvsvn": 3})
>>> accepted = AnyOf(first, Reference({"mrenclave": b"e" * 32}))
>>> measured = {"mrenclave": b"x" * 32, "mrsigner": b"s" * 32, "isvprodid": 1, "isvsvn": 2}
>>> accepted.differences({**measured, "isvsvn": 3})
[]
>>> first.differences(measured)
['isvsvn is 2, below 3']
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Protocol

from edgeclave.evidence.anchors import Measurement

MINIMUM = "minimum_"


class Rule(Protocol):
    """What a measurement is compared with."""

    def differences(self, measured: Measurement) -> list[str]:
        """What keeps the measurement from being accepted, for people; empty if it is accepted."""

    def alternatives(self) -> list[frozenset[str]]:
        """For each way to be accepted, the names of the values that must match."""


class Reference:
    """One runtime: all named values must be measured exactly; `minimum_` before the name of an integer: at least."""

    def __init__(self, values: Measurement) -> None:
        self.values: Mapping[str, bytes | int] = dict(values)

    def differences(self, measured: Measurement) -> list[str]:
        found: list[str] = []
        for name, wanted in self.values.items():
            register = name.removeprefix(MINIMUM)
            actual = measured.get(register)
            if name.startswith(MINIMUM):
                if not isinstance(actual, int) or not isinstance(wanted, int) or actual < wanted:
                    found.append(f"{register} is {_shown(actual)}, below {_shown(wanted)}")
            elif type(actual) is not type(wanted) or actual != wanted:
                found.append(f"{register} is {_shown(actual)}, not {_shown(wanted)}")
        return found

    def alternatives(self) -> list[frozenset[str]]:
        return [frozenset(name.removeprefix(MINIMUM) for name in self.values)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and self.values == other.values

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Reference({self.values!r})"


class AnyOf:
    """Accepts what one of the rules accepts; without rules, nothing."""

    def __init__(self, *rules: Rule) -> None:
        self.rules = rules

    def differences(self, measured: Measurement) -> list[str]:
        """Those of the rule that comes nearest."""
        if not self.rules:
            return ["no reference value is named"]
        return min((rule.differences(measured) for rule in self.rules), key=len)

    def alternatives(self) -> list[frozenset[str]]:
        return [names for rule in self.rules for names in rule.alternatives()]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyOf) and self.rules == other.rules

    __hash__ = None  # type: ignore[assignment]


class AllOf:
    """Accepts what all of the rules accept."""

    def __init__(self, *rules: Rule) -> None:
        self.rules = rules

    def differences(self, measured: Measurement) -> list[str]:
        return [difference for rule in self.rules for difference in rule.differences(measured)]

    def alternatives(self) -> list[frozenset[str]]:
        ways = product(*(rule.alternatives() for rule in self.rules))
        return [frozenset().union(*names) for names in ways]


def all_of(first: Rule, second: Rule) -> Rule:
    """Both; UnsafeAnyRuntime adds nothing to another."""
    if isinstance(first, UnsafeAnyRuntime):
        return second
    return first if isinstance(second, UnsafeAnyRuntime) else AllOf(first, second)


class UnsafeAnyRuntime:
    """Accepts whatever is measured, so nothing is known of the code. Only to describe a platform, never to rely."""

    def differences(self, measured: Measurement) -> list[str]:
        return []

    def alternatives(self) -> list[frozenset[str]]:
        return []


def _shown(value: bytes | int | None) -> str:
    return value.hex() if isinstance(value, bytes) else "not measured" if value is None else str(value)
