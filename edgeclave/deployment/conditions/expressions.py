"""What a parsed condition is made of: kinds known beforehand, values asked of each message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeclave.deployment.conditions.functions import FUNCTIONS, IS_DEFINED, Function
from edgeclave.deployment.conditions.values import UNDEFINED, Kind, any_true, compared, negated

Resolver = Callable[[str], Any]  # a property as written -> its value; None for null or none, UNDEFINED for unknowable
Evaluate = Callable[[Resolver], Any]
Links = Sequence[tuple[str, Evaluate]]  # operators and what stands to the right of each


@dataclass(frozen=True)
class Dialect:
    """`typed`: edgeHub's way, with kinds that are checked beforehand; see the package."""

    name: str
    typed: bool
    functions: Mapping[str, Function]


ROUTES = Dialect("routes", typed=True, functions=FUNCTIONS)
TWINS = Dialect("queries", typed=False, functions={"is_defined": IS_DEFINED})


@dataclass(frozen=True)
class Condition:
    """A parsed condition and its text."""

    text: str
    _evaluate: Evaluate

    def matches(self, resolve: Resolver) -> bool:
        return self.value(resolve) is True

    def value(self, resolve: Resolver) -> Any:
        """What it comes to: bool, float, str, None or UNDEFINED."""
        return self._evaluate(resolve)


@dataclass(frozen=True)
class Expression:
    kind: Kind
    evaluate: Evaluate


def constant(kind: Kind, value: Any) -> Expression:
    return Expression(kind, lambda _resolve: value)


def read_property(kind: Kind, name: str, *, null: bool = False) -> Expression:
    """`null`: nothing there is null, not undefined."""
    if null:
        return Expression(kind, lambda resolve: resolve(name))
    return Expression(kind, lambda resolve: UNDEFINED if (value := resolve(name)) is None else value)


def chained(left: Expression, links: Links, kind: Kind, step: Callable[[str, Any, Any], Any]) -> Expression:
    """From left to right, in a loop."""
    if not links:
        return left

    def evaluate(resolve: Resolver) -> Any:
        value = left.evaluate(resolve)
        for symbol, term in links:
            value = step(symbol, value, term(resolve))
        return value

    return Expression(kind, evaluate)


def combined(terms: Sequence[Expression], combine: Callable[[list[Any]], Any]) -> Expression:
    """AND and OR."""
    evaluates = [term.evaluate for term in terms]
    return Expression("bool", lambda resolve: combine([term(resolve) for term in evaluates]))


def first_defined(terms: Sequence[Expression]) -> Expression:
    """`??`"""
    kind: Kind = terms[0].kind if all(term.kind == terms[0].kind for term in terms) else "any"
    evaluates = [term.evaluate for term in terms]
    return Expression(kind, lambda resolve: _first_defined(evaluates, resolve))


def is_one_of(left: Expression, choices: Sequence[Expression]) -> Expression:
    """`IN`"""

    def evaluate(resolve: Resolver) -> Any:
        value = left.evaluate(resolve)
        return any_true([compared("=", value, choice.evaluate(resolve), across=False) for choice in choices])

    return Expression("bool", evaluate)


def negation(term: Expression, times: int) -> Expression:
    """`NOT`; of null it is true, as in edgeHub."""
    if term.kind == "null":
        return constant("bool", times % 2 == 1)
    evaluate = term.evaluate
    if times % 2:
        return Expression("bool", lambda resolve: negated(evaluate(resolve)))
    return Expression("bool", lambda resolve: negated(negated(evaluate(resolve))))


def call(function: Function, arguments: Sequence[Expression]) -> Expression:
    evaluates = [argument.evaluate for argument in arguments]
    return Expression(function.result, lambda resolve: function(*(term(resolve) for term in evaluates)))


def _first_defined(terms: Sequence[Evaluate], resolve: Resolver) -> Any:
    for term in terms:
        value = term(resolve)
        if value is not UNDEFINED:
            return value
    return UNDEFINED
