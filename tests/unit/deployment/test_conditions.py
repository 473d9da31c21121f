"""Conditions of routes (the grammar and its kinds) and of queries (the same, with JSON's types)."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.deployment.conditions import ROUTES, TWINS, UNDEFINED, Dialect, parse
from edgeclave.errors import ConfigurationError

MESSAGE = {
    "level": "31.5",
    "kind": "alert",
    "my-name": "x",
    "$body.machine.temperature": 21.5,
    "$body.ok": True,
    "$body.text": "30",
    "$body.unit": {"name": "C"},
    "$body.strange": UNDEFINED,
    "$contentType": "application/json",
    "$kind": "application property",
    "{$kind}": "system property",
}
TWIN = {"tags.floor": 2, "tags.site": "n", "tags.on": True}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("kind = 'alert'", True, id="text property"),
        pytest.param('kind = "alert"', True, id="double quotes"),
        pytest.param("kind = 'Alert'", False, id="text compares exactly"),
        pytest.param("kind <> 'alert' OR kind != 'alert'", False, id="both signs for unequal"),
        pytest.param("kind > 'alarm'", True, id="texts have an order"),
        pytest.param("as_number(level) > 30", True, id="a property as a number"),
        pytest.param("30 < as_number(level)", True, id="literal first"),
        pytest.param("missing = 'x'", UNDEFINED, id="a property that is not there"),
        pytest.param("NOT (missing = 'x')", UNDEFINED, id="undefined stays undefined when negated"),
        pytest.param("missing = 'x' OR kind = 'alert'", True, id="undefined or true"),
        pytest.param("missing = 'x' OR kind = 'x'", UNDEFINED, id="undefined or false"),
        pytest.param("missing = 'x' AND kind = 'x'", False, id="undefined and false"),
        pytest.param("missing = 'x' AND kind = 'alert'", UNDEFINED, id="undefined and true"),
        pytest.param("NOT (kind = 'x' OR kind = 'y')", True, id="not, parentheses"),
        pytest.param("not not (kind = 'alert')", True, id="double negation, small letters"),
        pytest.param("kind = 'a' OR kind = 'alert' AND as_number(level) > 40", False, id="and binds tighter than or"),
        pytest.param("$contentType = 'application/json'", True, id="system property"),
        pytest.param("$kind", "application property", id="an application property of that name comes first"),
        pytest.param("{$kind}", "system property", id="in braces it does not"),
        pytest.param("my-name = 'x'", True, id="name with a dash"),
        pytest.param("3 + 4 * 5", 23.0, id="product before sum"),
        pytest.param("3 - (4 + 0x10)", -17.0, id="hexadecimal"),
        pytest.param("10 - 3 - 2", 5.0, id="from left to right"),
        pytest.param("1.234e-1", 0.1234, id="exponent"),
        pytest.param("- - 3", 3.0, id="two signs"),
        pytest.param("1 - -2", 3.0, id="minus a negative"),
        pytest.param("7 % 4", 3.0, id="remainder"),
        pytest.param("-7 % 4", -3.0, id="remainder takes the sign of the dividend"),
        pytest.param("3 / 0 > 1e300", True, id="divided by zero is infinite"),
        pytest.param("3 % 0", UNDEFINED, id="remainder of zero is not a number, so undefined"),
        pytest.param("0 / 0", UNDEFINED, id="zero by zero, too"),
        pytest.param("'a' || kind || 'd' = 'aalertd'", True, id="texts put together before they are compared"),
        pytest.param("'a' || missing", UNDEFINED, id="put together with nothing"),
        pytest.param("(missing ?? missing ?? 'x') = 'x'", True, id="the first that is defined"),
        pytest.param("(as_number(kind) ?? 12.34) = 12.34", True, id="a text that is no number"),
        pytest.param("3 + 4 < 7 = false", True, id="order before equality"),
        pytest.param("null", None, id="null"),
        pytest.param("not null", True, id="null negated"),
        pytest.param("null or false", False, id="null or"),
        pytest.param("(null and true) = null", True, id="null and"),
        pytest.param("undefined or true", True, id="the word undefined"),
        pytest.param("false < true", True, id="booleans have an order"),
        pytest.param(r"'a\'b\u00fc\\' = 'a' || " + r'"\u0027bü\\"', True, id="escapes"),
    ],
)
def test_value_in_a_route(text: str, value: object) -> None:
    condition = parse(text, ROUTES)
    assert condition.value(MESSAGE.get) == value
    assert condition.matches(MESSAGE.get) is (value is True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("$body.machine.temperature + 0.5 = 22", True, id="a number of the body"),
        pytest.param("$body.ok", True, id="a boolean of the body"),
        pytest.param("$BODY.ok = true", UNDEFINED, id="another spelling asks for another name of this test"),
        pytest.param("$body.text = 30", False, id="another type is not equal"),
        pytest.param("$body.text <> 30", True, id="but unequal"),
        pytest.param("$body.text > 30", True, id="text comes after numbers, as in edgeHub"),
        pytest.param("$body.missing = null", True, id="a path that is not there is null, as in edgeHub"),
        pytest.param("$body.missing = 1", False, id="null is not a number"),
        pytest.param("$body.missing > 1", True, id="null comes after numbers, as in edgeHub"),
        pytest.param("is_number($body.missing) AND $body.missing > 1", False, id="how to ask instead"),
        pytest.param("$body.text + 1", UNDEFINED, id="a text cannot be added"),
        pytest.param("NOT $body.text", UNDEFINED, id="nor negated"),
        pytest.param("$body.unit = $body.unit", UNDEFINED, id="objects do not compare"),
        pytest.param("$body.strange = 1", UNDEFINED, id="a body that cannot be asked"),
    ],
)
def test_value_of_the_body(text: str, value: object) -> None:
    assert parse(text, ROUTES).value(lambda name: MESSAGE.get(name, UNDEFINED if "BODY" in name else None)) == value


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        pytest.param("kind = ", 8, "found its end", id="nothing to compare with"),
        pytest.param("kind = 'alert", 8, "not closed", id="quote not closed"),
        pytest.param(r"kind = 'al\ert'", 8, "escape", id="unknown escape"),
        pytest.param("(kind = 'a'", 12, "expected ')'", id="parenthesis not closed"),
        pytest.param("kind = 'a' kind = 'b'", 12, "unexpected 'kind'", id="two conditions side by side"),
        pytest.param("kind = 'a')", 11, "unexpected ')'", id="parenthesis too many"),
        pytest.param("kind == 'a'", 7, "expected a property", id="two equal signs"),
        pytest.param("  kind && level", 8, "cannot read", id="another language's and"),
        pytest.param("uper(kind) = 'A'", 1, "no function uper", id="unknown function"),
        pytest.param("kind = 'a' AND foo()", 16, "no function foo", id="unknown function further on"),
        pytest.param("length(kind, kind) = 1", 1, "takes 1 argument, not 2", id="too many arguments"),
        pytest.param("starts_with(kind)", 1, "takes 2 arguments, not 1", id="too few arguments"),
        pytest.param("concat('a') = 'a'", 1, "takes 2 or more", id="nothing to put together"),
        pytest.param("substring('a', 1, 2, 3) = 'a'", 1, "takes 2 or 3", id="substring of four"),
        pytest.param("abs(kind) > 1", 1, "cannot take (a text)", id="a text as a number"),
        pytest.param("level > 30", 7, "does not go with a text and a number", id="a property beside a number"),
        pytest.param("kind = true", 6, "does not go with", id="a property beside a boolean"),
        pytest.param("kind = null", 6, "does not go with", id="a property beside null"),
        pytest.param("'a' + 'b' = 'ab'", 5, "does not go with", id="texts added"),
        pytest.param("1 || 2", 3, "does not go with", id="numbers put together"),
        pytest.param("(kind ?? 12.34)", 7, "does not go with", id="a text or else a number"),
        pytest.param("- kind = 1", 1, "does not go with", id="a text with a sign"),
        pytest.param("3 + undefined", 3, "does not go with", id="undefined added"),
        pytest.param("NOT kind = 'alert'", 1, "NOT takes a boolean", id="not binds tighter than equality"),
        pytest.param("kind AND true", 6, "stands between booleans", id="a text as a condition"),
        pytest.param("kind IN ['a']", 6, "unexpected 'IN'", id="in is for queries"),
        pytest.param("$body.a[] = 1", 8, "unexpected '['", id="no index"),
        pytest.param("$body.a[1:2] = 1", 10, "cannot read", id="a slice"),
        pytest.param("$body['a'] = 1", 1, "only paths into the body", id="a name in brackets"),
        pytest.param("$body.a['b'] = 1", 1, "not a path into the body", id="a name in brackets further on"),
        pytest.param("{kind} = 'a'", 2, "expected a $name", id="braces around an application property"),
        pytest.param("(" * 100 + "true" + ")" * 100, 33, "nested", id="nested without end"),
        pytest.param("true OR " * 2000 + "true", 1, "characters", id="too long"),
    ],
)
def test_refuses_with_a_reason_and_the_column(text: str, column: int, reason: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(text, ROUTES, where="routes.r")
    assert refused.value.code == "bad-condition"
    assert reason in refused.value.what
    assert refused.value.where == f"routes.r, column {column}"


def test_advice_says_what_to_write_instead() -> None:
    advised = {"level > 30": "as_number(property)", "uper(kind) = 'A'": "upper", "NOT kind = 'a'": "NOT ("}
    for text, advice in advised.items():
        with pytest.raises(ConfigurationError) as refused:
            parse(text, ROUTES)
        assert advice in refused.value.advice


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("tags.floor > 1", True, id="numbers are numbers"),
        pytest.param("tags.floor = '2'", UNDEFINED, id="another type is undefined"),
        pytest.param("tags.nothing != 1", UNDEFINED, id="what is not there is undefined"),
        pytest.param("NOT tags.site = 'n'", False, id="not takes the whole comparison"),
        pytest.param("tags.floor IN [1, 1 + 1]", True, id="in"),
        pytest.param("tags.site IN [1, 's'] OR tags['site'] = 'n'", UNDEFINED, id="in, nothing of its type"),
        pytest.param("TRUE AND tags.on = True", True, id="constants in any case"),
    ],
)
def test_value_in_a_query(text: str, value: object) -> None:
    assert parse(text, TWINS).value(TWIN.get) == value


@pytest.mark.parametrize("text", ["is_string(tags.site)", "upper(tags.site) = 'N'"])
def test_queries_have_only_is_defined(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is for the conditions of routes"):
        parse(text, TWINS)


@pytest.mark.parametrize("operator", ["+", "*", "||", "??", "=", "<", "AND", "OR"])
@pytest.mark.parametrize("dialect", [ROUTES, TWINS], ids=lambda dialect: dialect.name)
def test_chains_as_long_as_a_condition_may_be(operator: str, dialect: Dialect) -> None:
    operand = {"||": "''", "AND": "true", "OR": "false"}.get(operator, "1")
    count = 4000 // (len(operand) + len(operator) + 2)
    with contextlib.suppress(ConfigurationError):  # a boolean beside a number
        parse(f" {operator} ".join([operand] * count), dialect).value({}.get)
    with contextlib.suppress(ConfigurationError):
        parse("not " * 900 + "true", dialect).value({}.get)
    parse("-" * 3000 + "1 = 1", dialect).value({}.get)


OPERANDS = ["kind", "$body.a[0]", "{$kind}", "'x'", "1", "0x1f", "1e3", "true", "null", "undefined"]
OPERATORS = ["=", "<>", "<=", "+", "-", "||", "??", "%", "NOT", "AND", "OR", "IN", ",", "(", ")", "[", "]"]
FRAGMENTS = st.sampled_from([*OPERANDS, *OPERATORS, "length(", "substring(", "as_number("])


@given(st.one_of(st.text(max_size=60), st.lists(FRAGMENTS, max_size=25).map(" ".join)))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for dialect in (ROUTES, TWINS):
        with contextlib.suppress(ConfigurationError):
            assert parse(text, dialect).matches(MESSAGE.get) in (True, False)
