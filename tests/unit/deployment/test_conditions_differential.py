"""Conditions against a second evaluator that knows nothing of text, tokens or precedence: it walks a tree of tuples.

The tree is written out with as many or as few parentheses as its operators need, in any case and with odd spaces.
"""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave.deployment.conditions import ROUTES, UNDEFINED, parse

MESSAGE: dict[str, Any] = {
    "a": "7",
    "b": "x",
    "$body.n": 4,
    "$body.f": -0.5,
    "$body.s": "7",
    "$body.t": True,
    "$body.z": None,
    "$body.o": {"k": 1},
}
LEVELS = ("??", "or", "and", "= <>", "< >=", "+ -", "* / %", "not neg", "leaf")
LEVEL = {symbol: number for number, level in enumerate(LEVELS) for symbol in level.split()}

_numbers = st.sampled_from([("number", 0.0), ("number", 3.0), ("number", 0.25), ("any", "$body.n"), ("any", "$body.f")])
_numbers_at_risk = st.one_of(_numbers, st.sampled_from([("as_number", "a"), ("as_number", "b"), ("as_number", "none")]))
_texts = st.sampled_from([("text", "x"), ("text", "O'Neill"), ("property", "a"), ("property", "none")])
_bodies = st.sampled_from([("any", name) for name in (*MESSAGE, "$body.none") if name.startswith("$")])


def _arithmetic(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.tuples(st.sampled_from(["+", "-", "*", "/", "%"]), children, children), st.tuples(st.just("neg"), children)
    )


NUMBERS = st.recursive(_numbers_at_risk, _arithmetic, max_leaves=6)
COMPARISONS = st.one_of(
    st.tuples(st.sampled_from(["=", "<>", "<", ">="]), NUMBERS, NUMBERS),
    st.tuples(st.sampled_from(["=", "<>", "<", ">="]), _texts, _texts),
    st.tuples(st.sampled_from(["=", "<>", "<", ">="]), _bodies, _bodies),
    st.sampled_from([("bool", True), ("bool", False), ("any", "$body.t")]),
)
CONDITIONS = st.recursive(
    COMPARISONS,
    lambda children: st.one_of(
        st.tuples(st.sampled_from(["and", "or", "??", "="]), children, children), st.tuples(st.just("not"), children)
    ),
    max_leaves=12,
)


def value_of(tree: Any) -> Any:
    """None is null, math.nan is undefined here: another choice than the code's."""
    kind, *rest = tree
    if kind in ("number", "text", "bool"):
        return rest[0]
    if kind == "property":
        return MESSAGE.get(rest[0], math.nan)
    if kind == "any":
        return MESSAGE.get(rest[0])
    if kind == "as_number":
        return {"7": 7.0}.get(MESSAGE.get(rest[0], ""), math.nan)
    values = [value_of(child) for child in rest]
    if kind == "not":
        return not values[0] if isinstance(values[0], bool) else math.nan
    if kind == "neg":
        return -values[0]
    if kind == "??":
        return values[1] if undefined(values[0]) else values[0]
    if kind in ("and", "or"):
        numbers = [{True: 1, False: -1}[value] if isinstance(value, bool) else 0 for value in values]
        return {1: True, -1: False, 0: math.nan}[min(numbers) if kind == "and" else max(numbers)]
    if kind in ("=", "<>", "<", ">="):
        return compare(kind, *values)
    return arithmetic(kind, *values)


def undefined(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def compare(kind: str, left: Any, right: Any) -> Any:
    order = [bool, float, str, type(None)]
    sides = []
    for value in (left, right):
        if undefined(value) or isinstance(value, dict):
            return math.nan
        number = float(value) if type(value) is int else value
        sides.append((order.index(type(number)), 0 if number is None else number))
    if sides[0][0] != sides[1][0]:
        sides = [(side[0], 0) for side in sides]
    return {
        "=": sides[0] == sides[1],
        "<>": sides[0] != sides[1],
        "<": sides[0] < sides[1],
        ">=": sides[0] >= sides[1],
    }[kind]


def arithmetic(kind: str, left: Any, right: Any) -> float:
    if undefined(left) or undefined(right):
        return math.nan
    if kind == "/":
        if right == 0:
            return math.nan if left == 0 else math.copysign(math.inf, left) * math.copysign(1, right)
        return float(left / right)
    if kind == "%":
        return math.nan if right == 0 or math.isinf(left) else math.fmod(left, right)
    return {"+": left + right, "-": left - right, "*": left * right}[kind]


def written(tree: Any, draw: Any) -> str:
    kind, *rest = tree
    if kind == "number":
        return format(rest[0], "g")
    if kind == "text":
        return "'" + rest[0].replace("'", "\\'") + "'"
    if kind == "bool":
        return str(rest[0]).lower()
    if kind == "as_number":
        return f"As_Number( {rest[0]} )"
    if kind in ("property", "any"):
        return str(rest[0])
    own = LEVEL[kind]
    parts = []
    for number, child in enumerate(rest):
        level = LEVEL.get(child[0], len(LEVELS))
        needed = level < own or (level == own and (number == 1 or len(rest) == 1))
        text = written(child, draw)
        parts.append(f"({text})" if needed or draw(st.booleans()) else text)
    word = {"neg": "-", "not": draw(st.sampled_from(["not", "NOT"])), "or": "Or", "and": "AND"}.get(kind, kind)
    space = draw(st.sampled_from([" ", "  ", "\n"]))
    return space.join([word, parts[0]] if len(parts) == 1 else [parts[0], word, parts[1]])


@st.composite
def _conditions(draw: Any) -> tuple[Any, str]:
    tree = draw(CONDITIONS)
    return tree, written(tree, draw)


@settings(max_examples=300)
@given(_conditions())
def test_two_evaluators_agree(case: tuple[Any, str]) -> None:
    tree, text = case
    expected = value_of(tree)
    assert parse(text, ROUTES).value(MESSAGE.get) == (UNDEFINED if undefined(expected) else expected)
