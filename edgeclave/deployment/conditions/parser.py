"""From text to something that can be asked of each message; the grammar and its rules are in the package's own words.

Chains of one operator are loops here and in what is made, so that no condition within its length can go too deep.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from edgeclave.deployment.conditions import expressions
from edgeclave.deployment.conditions.expressions import Condition, Dialect, Evaluate, Expression
from edgeclave.deployment.conditions.functions import FUNCTIONS, Function
from edgeclave.deployment.conditions.tokens import Token, bad_condition, number_of, tokens_of, unescaped
from edgeclave.deployment.conditions.values import (
    UNDEFINED,
    Kind,
    all_true,
    any_true,
    as_float,
    calculated,
    compared,
    fits,
)
from edgeclave.errors import ConfigurationError

MAX_CONDITION_CHARACTERS = 4096
MAX_CONDITION_DEPTH = 32

_BODY_PATH = re.compile(r"\$body(?:\.[\w$\-]+(?:\[\d+\])?)+", re.IGNORECASE)
_CONSTANTS: dict[str, tuple[Kind, Any]] = {
    "true": ("bool", True),
    "false": ("bool", False),
    "null": ("null", None),
    "undefined": ("undefined", UNDEFINED),
}
_KINDS = {"string": "a text", "number": "a number", "bool": "a boolean", "any": "a value"}
_TEXTS = "application and system properties are texts: as_number(property) makes a number of one"


def parse(text: str, dialect: Dialect, *, where: str = "", first_column: int = 1) -> Condition:
    """Raises ConfigurationError `bad-condition` that points at the offending part, counting from `first_column`."""
    if len(text) > MAX_CONDITION_CHARACTERS:
        raise bad_condition(f"a condition has at most {MAX_CONDITION_CHARACTERS} characters", where, first_column)
    parser = _Parser(tokens_of(text, where, first_column), dialect, where)
    return Condition(text, parser.whole().evaluate)


class _Parser:
    """One method for each level, from the loosest operator to the tightest."""

    def __init__(self, tokens: Sequence[Token], dialect: Dialect, where: str) -> None:
        self._tokens = tokens
        self._dialect = dialect
        self._typed = dialect.typed
        self._where = where
        self._position = 0
        self._depth = 0

    def whole(self) -> Expression:
        expression = self._expression()
        if self._peek().kind != "end":
            raise self._bad(f"unexpected {self._peek()} in the condition", self._peek())
        return expression

    def _expression(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_CONDITION_DEPTH:
            raise self._bad(f"a condition is nested at most {MAX_CONDITION_DEPTH} deep", self._peek())
        terms = [self._or()]
        while token := self._take("??"):
            terms.append(self._or())
            self._check_alike(token, terms[0].kind, terms[-1].kind)
        self._depth -= 1
        return terms[0] if len(terms) == 1 else expressions.first_defined(terms)

    def _or(self) -> Expression:
        terms = self._logical("or", self._and)
        known = [term for term in terms if term.kind != "null"]  # null OR x is x
        return expressions.combined(known, any_true) if len(terms) > 1 and known else terms[0]

    def _and(self) -> Expression:
        terms = self._logical("and", self._equality if self._typed else self._negated_comparison)
        if len(terms) == 1:
            return terms[0]
        if any(term.kind == "null" for term in terms):
            return expressions.constant("null", None)
        return expressions.combined(terms, all_true)

    def _logical(self, word: str, below: Callable[[], Expression]) -> list[Expression]:
        terms = [below()]
        while token := self._keyword(word):
            terms.append(below())
            for term in terms[-2:]:
                if self._typed and term.kind in ("string", "number"):
                    raise self._bad(f"{token.text} stands between booleans, not beside {_KINDS[term.kind]}", token)
        return terms

    def _negated_comparison(self) -> Expression:
        return self._negated(self._equality)

    def _equality(self) -> Expression:
        return self._comparison(("=", "!=", "<>"), self._order)

    def _order(self) -> Expression:
        return self._comparison(("<", "<=", ">", ">="), self._sum)

    def _comparison(self, symbols: tuple[str, ...], below: Callable[[], Expression]) -> Expression:
        left = below()
        if not self._typed and self._keyword("in"):
            return self._in(left)
        kind, links = left.kind, list[tuple[str, Evaluate]]()
        while token := self._take(*symbols):
            right = below()
            self._check_alike(token, kind, right.kind)
            links.append((token.text, right.evaluate))
            kind = "bool"
        return expressions.chained(left, links, kind, partial(compared, across=self._typed))

    def _in(self, left: Expression) -> Expression:
        self._expect("[")
        choices = [self._sum()]
        while self._take(","):
            choices.append(self._sum())
        self._expect("]")
        return expressions.is_one_of(left, choices)

    def _sum(self) -> Expression:
        return self._calculation(("+", "-", "||"), self._product)

    def _product(self) -> Expression:
        return self._calculation(("*", "/", "%"), self._tight)

    def _calculation(self, symbols: tuple[str, ...], below: Callable[[], Expression]) -> Expression:
        left = below()
        kind, links = left.kind, list[tuple[str, Evaluate]]()
        while token := self._take(*symbols):
            right = below()
            wanted: Kind = "string" if token.text == "||" else "number"
            for given in (kind, right.kind):
                if not fits(wanted, given):
                    raise self._operand_error(token, wanted, given)
            links.append((token.text, right.evaluate))
            kind = wanted
        return expressions.chained(left, links, kind, calculated)

    def _tight(self) -> Expression:
        return self._negated(self._signed) if self._typed else self._signed()

    def _negated(self, below: Callable[[], Expression]) -> Expression:
        words: list[Token] = []
        while token := self._keyword("not"):
            words.append(token)
        term = below()
        if words and self._typed and term.kind in ("string", "number", "undefined"):
            raise self._bad(
                f"NOT takes a boolean, not {_KINDS.get(term.kind, term.kind)}",
                words[-1],
                advice="NOT binds tighter than comparisons in routes: write NOT (a = b)",
            )
        return expressions.negation(term, len(words)) if words else term

    def _signed(self) -> Expression:
        signs: list[Token] = []
        while token := self._take("-"):
            signs.append(token)
        term = self._operand()
        if signs and not fits("number", term.kind):
            raise self._operand_error(signs[-1], "number", term.kind)
        sign = expressions.constant("number", (-1.0) ** len(signs))
        return expressions.chained(term, [("*", sign.evaluate)], "number", calculated) if signs else term

    def _operand(self) -> Expression:
        token = self._peek()
        self._position += token.kind != "end"
        if token.kind == "text":
            return expressions.constant("string", unescaped(token.text))
        if token.kind == "number":
            return expressions.constant("number", as_float(number_of(token.text)))
        if token.text == "(":
            inner = self._expression()
            self._expect(")")
            return inner
        if token.text == "{" and self._typed:
            return self._escaped()
        if token.kind != "word":
            raise self._bad(f"expected a property or a value in the condition, found {token}", token)
        if self._take("("):
            return self._function(token)
        constant = _CONSTANTS.get(token.text if self._typed else token.text.lower())
        return expressions.constant(*constant) if constant else self._property(token, token.text)

    def _escaped(self) -> Expression:
        token = self._peek()
        if token.kind != "word" or not token.text.startswith("$"):
            raise self._bad(f"expected a $name between the braces, found {token}", token)
        self._position += 1
        self._expect("}")
        return self._property(token, f"{{{token.text}}}")

    def _property(self, token: Token, name: str) -> Expression:
        if not self._typed:
            return expressions.read_property("any", name)
        if token.text.lower().startswith("$body."):
            if not _BODY_PATH.fullmatch(token.text):
                raise self._bad(
                    f"{token.text[:80]!r} is not a path into the body", token, advice="write $body.a.b[0].c"
                )
            return expressions.read_property("any", name, null=True)
        if "[" in token.text:
            raise self._bad(f"{token.text[:80]!r}: only paths into the body have [..]", token)
        return expressions.read_property("string", name)

    def _function(self, token: Token) -> Expression:
        function = self._dialect.functions.get(token.text.lower())
        if function is None:
            raise self._unknown_function(token)
        arguments: list[Expression] = []
        if not self._take(")"):
            arguments.append(self._expression())
            while self._take(","):
                arguments.append(self._expression())
            self._expect(")")
        kinds = [argument.kind for argument in arguments]
        if not function.accepts(kinds):
            raise self._argument_error(token, function, kinds)
        return expressions.call(function, arguments)

    # errors

    def _unknown_function(self, token: Token) -> ConfigurationError:
        name = token.text.lower()
        if name in FUNCTIONS:
            return self._bad(f"the function {token.text} is for the conditions of routes", token)
        near = difflib.get_close_matches(name, list(self._dialect.functions), 1)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(self._dialect.functions))}"
        return self._bad(f"there is no function {token.text[:80]}", token, advice=advice)

    def _argument_error(self, token: Token, function: Function, kinds: Sequence[Kind]) -> ConfigurationError:
        if not function.takes_as_many(len(kinds)):
            return self._bad(f"{token.text} takes {function.how_many()}, not {len(kinds)}", token)
        given = ", ".join(_KINDS.get(kind, kind) for kind in kinds)
        return self._bad(f"{token.text} cannot take ({given})", token, advice=_TEXTS if "string" in kinds else "")

    def _check_alike(self, token: Token, left: Kind, right: Kind) -> None:
        if self._typed and not fits(left, right):
            raise self._operand_error(token, left, right)

    def _operand_error(self, token: Token, left: Kind, right: Kind) -> ConfigurationError:
        kinds = " and ".join(_KINDS.get(kind, kind) for kind in (left, right))
        advice = _TEXTS if "string" in (left, right) else ""
        return self._bad(f"{token.text!r} does not go with {kinds}", token, advice=advice)

    def _bad(self, what: str, token: Token, *, advice: str = "") -> ConfigurationError:
        return bad_condition(what, self._where, token.column, advice=advice)

    # tokens

    def _peek(self) -> Token:
        return self._tokens[self._position]

    def _keyword(self, word: str) -> Token | None:
        token = self._peek()
        if token.kind != "word" or token.text.lower() != word:
            return None
        self._position += 1
        return token

    def _take(self, *symbols: str) -> Token | None:
        token = self._peek()
        if token.kind != "operator" or token.text not in symbols:
            return None
        self._position += 1
        return token

    def _expect(self, symbol: str) -> None:
        if not self._take(symbol):
            raise self._bad(f"expected {symbol!r} in the condition, found {self._peek()}", self._peek())
