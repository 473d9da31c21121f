"""The functions of conditions, as IoT Hub documents them ("query language", functions).

Given something that is not of a parameter's type, or undefined, a function's value is undefined; the type functions
say false. `concat` takes two or more; `substring` a length, too. Positions count from 0.

>>> FUNCTIONS["substring"]("press", 1.0, 2.0), FUNCTIONS["index_of"]("press", "x"), FUNCTIONS["sqrt"]("4")
('re', -1.0, UNDEFINED)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeclave.deployment.conditions.values import UNDEFINED, Kind, as_float, is_number

_NUMBER = re.compile(r"\s*[+-]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*")
Parameter = frozenset[Kind]
_TEXT: Parameter = frozenset(("string", "any"))
_NUMERIC: Parameter = frozenset(("number", "any"))
_TEXT_OR_NUMBER: Parameter = _TEXT | _NUMERIC
_VALUE: Parameter = frozenset(("string", "number", "bool", "null", "undefined", "any"))


@dataclass(frozen=True)
class Function:
    """`parameters` beyond `least` may be left out; `more` may follow the last."""

    parameters: tuple[Parameter, ...]
    result: Kind
    call: Callable[..., Any]
    least: int
    more: bool = False

    def takes_as_many(self, count: int) -> bool:
        return self.least <= count and (self.more or count <= len(self.parameters))

    def accepts(self, kinds: Sequence[Kind]) -> bool:
        """Whether these may be its arguments, as far as one knows before a message comes."""
        if not self.takes_as_many(len(kinds)):
            return False
        return all(kind in self._parameter(number) for number, kind in enumerate(kinds))

    def how_many(self) -> str:
        """Of arguments, for a person."""
        if self.more:
            return f"{self.least} or more arguments"
        if self.least < len(self.parameters):
            return f"{self.least} or {len(self.parameters)} arguments"
        return "1 argument" if self.least == 1 else f"{self.least} arguments"

    def __call__(self, *values: Any) -> Any:
        given = [_argument(self._parameter(number), value) for number, value in enumerate(values)]
        return UNDEFINED if _WRONG in given else self.call(*given)

    def _parameter(self, number: int) -> Parameter:
        return self.parameters[min(number, len(self.parameters) - 1)]


_WRONG = object()


def _argument(parameter: Parameter, value: Any) -> Any:
    if parameter == _VALUE:
        return value
    if is_number(value) and "number" in parameter:
        number = as_float(value)
        return _WRONG if number is UNDEFINED else number
    return value if isinstance(value, str) and "string" in parameter else _WRONG


def _float(function: Callable[..., float], *values: float) -> Any:
    try:
        return as_float(function(*values))
    except OverflowError:
        return math.inf
    except (ValueError, ZeroDivisionError):
        return UNDEFINED


def _power(base: float, exponent: float) -> Any:
    if base == 0 and exponent < 0:
        return math.inf
    if math.isfinite(base) and base < 0 and math.isfinite(exponent):
        if exponent != math.floor(exponent):
            return UNDEFINED
        try:
            return math.pow(base, exponent)
        except OverflowError:
            return -math.inf if exponent % 2 else math.inf
    return _float(math.pow, base, exponent)


def _whole(function: Callable[[float], int]) -> Callable[[float], Any]:
    return lambda number: number if math.isinf(number) else float(function(number))


def _as_number(value: Any) -> Any:
    if is_number(value):
        return value
    return float(value.replace(",", "")) if _NUMBER.fullmatch(value) else UNDEFINED


def _substring(text: str, start: float, length: float | None = None) -> Any:
    if not 0 <= start <= len(text):
        return UNDEFINED
    if length is None:
        return text[int(start) :]
    if start >= len(text) or not 0 <= length <= len(text) - start:
        return UNDEFINED
    return text[int(start) : int(start) + int(length)]


def _sign(number: float) -> float:
    return float((number > 0) - (number < 0))


def _numeric(call: Callable[[float], Any]) -> Function:
    return Function((_NUMERIC,), "number", call, 1)


def _of_text(result: Kind, call: Callable[..., Any], parameters: int = 1) -> Function:
    return Function((_TEXT,) * parameters, result, call, parameters)


def _type(call: Callable[[Any], bool]) -> Function:
    return Function((_VALUE,), "bool", call, 1)


IS_DEFINED = _type(lambda value: value is not UNDEFINED)
FUNCTIONS: dict[str, Function] = {
    "abs": _numeric(abs),
    "exp": _numeric(lambda number: _float(math.exp, number)),
    "power": Function((_NUMERIC, _NUMERIC), "number", _power, 2),
    "square": _numeric(lambda number: number * number),
    "ceiling": _numeric(_whole(math.ceil)),
    "floor": _numeric(_whole(math.floor)),
    "sign": _numeric(_sign),
    "sqrt": _numeric(lambda number: _float(math.sqrt, number)),
    "as_number": Function((_TEXT_OR_NUMBER,), "number", _as_number, 1),
    "is_array": _type(lambda value: isinstance(value, list)),
    "is_bool": _type(lambda value: isinstance(value, bool)),
    "is_defined": IS_DEFINED,
    "is_null": _type(lambda value: value is None),
    "is_number": _type(lambda value: is_number(value) and as_float(value) not in (UNDEFINED, math.inf, -math.inf)),
    "is_object": _type(lambda value: isinstance(value, dict)),
    "is_primitive": _type(lambda value: value is None or isinstance(value, bool | int | float | str)),
    "is_string": _type(lambda value: isinstance(value, str)),
    "concat": Function((_TEXT, _TEXT), "string", lambda *texts: "".join(texts), 2, more=True),
    "length": _of_text("number", lambda text: float(len(text))),
    "lower": _of_text("string", str.lower),
    "upper": _of_text("string", str.upper),
    "substring": Function((_TEXT, _NUMERIC, _NUMERIC), "string", _substring, 2),
    "index_of": _of_text("number", lambda text, part: float(text.find(part)), 2),
    "starts_with": _of_text("bool", str.startswith, 2),
    "ends_with": _of_text("bool", str.endswith, 2),
    "contains": _of_text("bool", lambda text, part: part in text, 2),
}
