"""Conditions of routes and queries: `WHERE` in the part of IoT Hub's language that people use.

    condition  = or ;  or = and {OR and} ;  and = not {AND not} ;  not = [NOT] comparison
    comparison = operand [(= | != | <> | < | <= | > | >=) operand] | operand IN [ literals ] | ( or )
    operand    = 'text' | "text" | number | true | false | null | property | IS_DEFINED(property)
    property   = name | $name | $body.path | path.of.names

Three-valued as in IoT Hub: a comparison with something undefined or of another type is undefined, and undefined does
not match, negated or not.

>>> parse("level > 30 AND NOT $body.machine.id = 'a'").matches({"level": "31", "$body.machine.id": "b"}.get)
True
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeclave.errors import ConfigurationError

MAX_CONDITION_CHARACTERS = 4096
MAX_CONDITION_DEPTH = 32

Resolver = Callable[[str], Any]  # property name -> value, None when undefined
_Evaluate = Callable[[Resolver], Any]
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")|(?P<number>-?\d+(?:\.\d+)?)(?![\w.])"
    r"|(?P<operator><=|>=|<>|!=|=|<|>|\(|\)|\[|\]|,)"
    r"|(?P<word>[$A-Za-z_][\w$\-]*(?:\.[\w$\-]+|\['[^']+'\])*))"
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Condition:
    """A parsed condition and its text."""

    text: str
    _evaluate: _Evaluate

    def matches(self, resolve: Resolver) -> bool:
        return self._evaluate(resolve) is True


def parse(text: str, *, where: str = "") -> Condition:
    """Raises ConfigurationError `bad-condition` that points at the offending part."""
    if len(text) > MAX_CONDITION_CHARACTERS:
        raise _bad(f"a condition has at most {MAX_CONDITION_CHARACTERS} characters", where)
    parser = _Parser(_tokens(text, where), where)
    evaluate = parser.either()
    parser.end()
    return Condition(text, evaluate)


def _tokens(text: str, where: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise _bad(f"cannot read the condition at {text[position:].strip()[:40]!r}", where)
        tokens.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
    return tokens


class _Parser:
    def __init__(self, tokens: Sequence[tuple[str, str]], where: str) -> None:
        self._tokens = tokens
        self._position = 0
        self._depth = 0
        self._where = where

    def end(self) -> None:
        if self._position < len(self._tokens):
            raise _bad(f"unexpected {self._tokens[self._position][1]!r} in the condition", self._where)

    def either(self) -> _Evaluate:
        self._depth += 1
        if self._depth > MAX_CONDITION_DEPTH:
            raise _bad(f"a condition is nested at most {MAX_CONDITION_DEPTH} deep", self._where)
        terms = [self._both()]
        while self._keyword("or"):
            terms.append(self._both())
        self._depth -= 1
        return terms[0] if len(terms) == 1 else lambda resolve: _any([term(resolve) for term in terms])

    def _both(self) -> _Evaluate:
        terms = [self._negation()]
        while self._keyword("and"):
            terms.append(self._negation())
        return terms[0] if len(terms) == 1 else lambda resolve: _all([term(resolve) for term in terms])

    def _negation(self) -> _Evaluate:
        negations = 0
        while self._keyword("not"):
            negations += 1
        term = self._comparison()
        if negations % 2 == 0:
            return term

        def negated(resolve: Resolver) -> bool | None:
            value = term(resolve)
            return not value if isinstance(value, bool) else None

        return negated

    def _comparison(self) -> _Evaluate:
        if self._symbol("("):
            inner = self.either()
            self._expect(")")
            return inner
        left = self._operand()
        if self._keyword("in"):
            choices = self._list()
            return lambda resolve: _any([_compared("=", left(resolve), choice) for choice in choices])
        kind, symbol = self._peek()
        if kind != "operator" or symbol not in _COMPARE:
            return left
        self._position += 1
        right = self._operand()
        return lambda resolve: _compared(symbol, left(resolve), right(resolve))

    def _list(self) -> list[Any]:
        self._expect("[")
        choices = [self._operand()(_nothing)]
        while self._symbol(","):
            choices.append(self._operand()(_nothing))
        self._expect("]")
        return choices

    def _operand(self) -> _Evaluate:
        kind, token = self._peek()
        self._position += 1
        if kind == "text":
            text = re.sub(r"\\(.)", r"\1", token[1:-1])
            return lambda _resolve: text
        if kind == "number":
            number = float(token)
            return lambda _resolve: number
        if kind != "word":
            found = repr(token) if token else "its end"
            raise _bad(f"expected a property or a value in the condition, found {found}", self._where)
        if token.lower() in _CONSTANTS:
            constant = _CONSTANTS[token.lower()]
            return lambda _resolve: constant
        if self._symbol("("):
            return self._function(token)
        return lambda resolve: resolve(token)

    def _function(self, name: str) -> _Evaluate:
        if name.lower() != "is_defined":
            raise _bad(
                f"the function {name} is not known to the simulator", self._where, advice="IS_DEFINED(property) is"
            )
        argument = self._operand()
        self._expect(")")
        return lambda resolve: argument(resolve) is not None

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._position] if self._position < len(self._tokens) else ("", "")

    def _keyword(self, word: str) -> bool:
        kind, token = self._peek()
        if kind == "word" and token.lower() == word:
            self._position += 1
            return True
        return False

    def _symbol(self, symbol: str) -> bool:
        if self._peek() == ("operator", symbol):
            self._position += 1
            return True
        return False

    def _expect(self, symbol: str) -> None:
        if not self._symbol(symbol):
            found = self._peek()[1]
            raise _bad(f"expected {symbol!r} in the condition, found {found or 'its end'!r}", self._where)


def _nothing(_name: str) -> None:
    return None


def _any(values: Sequence[Any]) -> bool | None:
    if any(value is True for value in values):
        return True
    return None if any(value is None for value in values) else False


def _all(values: Sequence[Any]) -> bool | None:
    if any(value is False for value in values):
        return False
    return True if all(value is True for value in values) else None


def _compared(symbol: str, left: Any, right: Any) -> bool | None:
    """Message properties are strings: beside a number or a boolean they count as such when they look like one."""
    if left is None or right is None:
        return None
    left, right = _alike(left, right), _alike(right, left)
    if isinstance(left, bool) != isinstance(right, bool):
        return None
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if not numbers and not (isinstance(left, str) and isinstance(right, str)):
        return None
    return _COMPARE[symbol](left, right)


def _alike(value: Any, other: Any) -> Any:
    if not isinstance(value, str) or isinstance(other, str):
        return value
    if isinstance(other, bool):
        return {"true": True, "false": False}.get(value.lower())
    if isinstance(other, int | float):
        try:
            return float(value)
        except ValueError:
            return None
    return value


def _bad(what: str, where: str, *, advice: str = "") -> ConfigurationError:
    return ConfigurationError("bad-condition", what, where=where, advice=advice)
