"""What conditions calculate with: kinds known when a condition is set, values known when a message comes.

Values are bool, float, str, None (JSON null), dict and list (only type functions look at them), and UNDEFINED.

>>> compared("=", 3.0, "3", across=True), compared("=", 3.0, "3", across=False)
(False, UNDEFINED)
>>> calculated("/", -3.0, 0.0), calculated("%", 3.0, 0.0)
(-inf, UNDEFINED)
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final, Literal

Kind = Literal["string", "number", "bool", "null", "undefined", "any"]


class _Undefined(Enum):
    UNDEFINED = 0

    def __repr__(self) -> str:
        return self.name


UNDEFINED: Final = _Undefined.UNDEFINED
_KNOWN: frozenset[Kind] = frozenset(("string", "number", "bool", "null"))
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def fits(expected: Kind, given: Kind) -> bool:
    """Whether a value of one kind may stand where the other is expected; `any` is decided when the message comes."""
    return expected == given or (given == "any" and expected in _KNOWN) or (expected == "any" and given in _KNOWN)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_float(value: float) -> Any:
    """JSON's integers have no bounds; not a number is undefined, as in IoT Hub."""
    try:
        number = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    return UNDEFINED if math.isnan(number) else number


def compared(symbol: str, left: Any, right: Any, *, across: bool) -> Any:
    """`across`: values of different types have an order, as in edgeHub."""
    ranks = _rank(left), _rank(right)
    if None in ranks:
        return UNDEFINED
    compare = _COMPARE[symbol]
    if ranks[0] != ranks[1]:
        return compare(*ranks) if across else UNDEFINED
    if left is None:
        return compare(0, 0)
    if is_number(left):
        left, right = as_float(left), as_float(right)
        if left is UNDEFINED or right is UNDEFINED:
            return UNDEFINED
    return compare(left, right)


def calculated(symbol: str, left: Any, right: Any) -> Any:
    """`+ - * / %` of numbers as IEEE 754 has them, `||` of texts; all else is undefined."""
    if symbol == "||":
        return left + right if isinstance(left, str) and isinstance(right, str) else UNDEFINED
    if not is_number(left) or not is_number(right):
        return UNDEFINED
    left, right = as_float(left), as_float(right)
    if left is UNDEFINED or right is UNDEFINED:
        return UNDEFINED
    if symbol == "+":
        return as_float(left + right)
    if symbol == "-":
        return as_float(left - right)
    if symbol == "*":
        return as_float(left * right)
    if symbol == "/":
        return _divided(left, right)
    return UNDEFINED if right == 0 or math.isinf(left) else math.fmod(left, right)


def negated(value: Any) -> Any:
    return not value if isinstance(value, bool) else UNDEFINED


def any_true(values: Sequence[Any]) -> Any:
    if any(value is True for value in values):
        return True
    return False if all(value is False for value in values) else UNDEFINED


def all_true(values: Sequence[Any]) -> Any:
    if any(value is False for value in values):
        return False
    return True if all(value is True for value in values) else UNDEFINED


def _divided(left: float, right: float) -> Any:
    if right:
        return as_float(left / right)
    if not left:
        return UNDEFINED
    return math.copysign(math.inf, math.copysign(1, left) * math.copysign(1, right))


def _rank(value: Any) -> int | None:
    if isinstance(value, bool):
        return 0
    if is_number(value):
        return 1
    if isinstance(value, str):
        return 2
    return 3 if value is None else None
