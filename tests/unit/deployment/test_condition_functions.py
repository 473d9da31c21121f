"""The functions of conditions, case by case, as IoT Hub documents them and edgeHub has them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave.deployment.conditions import ROUTES, UNDEFINED, parse
from edgeclave.deployment.conditions.functions import FUNCTIONS

MESSAGE = {
    "name": "value1",
    "number": "3",
    "$body.list": [1, 2],
    "$body.object": {"a": 1},
    "$body.number": -50.4,
    "$body.text": "One Microsoft Way",
    "$body.flag": True,
    "$body.huge": 10**400,
    "$body.nan": float("nan"),
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("abs(-3)", 3.0),
        ("abs($body.number)", 50.4),
        ("abs(3 / 0) > 1e300", True),
        ("abs(3 % 0)", UNDEFINED),
        ("abs(exp(1) - 2.718281) < 1e-5", True),
        ("exp(1000) > 1e300", True),
        ("power(2, 10)", 1024.0),
        ("power(-8, 1 / 3)", UNDEFINED),
        ("power(0, -1) > 1e300", True),
        ("power(-10, 999) < -1e300", True),
        ("power(10, 999) > 1e300", True),
        ("square(-5)", 25.0),
        ("square(1e300) > 1e300", True),
        ("ceiling(2.1)", 3.0),
        ("ceiling(-2.9)", -2.0),
        ("floor(-2.1)", -3.0),
        ("floor(3 / 0) > 1e300", True),
        ("sign(-7)", -1.0),
        ("sign(0)", 0.0),
        ("sqrt(16)", 4.0),
        ("sqrt(-1)", UNDEFINED),
        ("abs($body.text)", UNDEFINED),
        ("abs($body.huge) > 1e300", True),
    ],
)
def test_mathematics(text: str, value: object) -> None:
    assert parse(text, ROUTES).value(MESSAGE.get) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("as_number('12')", 12.0),
        ("as_number(' -1.5e1 ')", -15.0),
        ("as_number('1,000')", 1000.0),
        ("as_number('0x10')", UNDEFINED),
        ("as_number('')", UNDEFINED),
        ("as_number(name)", UNDEFINED),
        ("as_number(number) = 3", True),
        ("as_number($body.number)", -50.4),
        ("as_number($body.flag)", UNDEFINED),
        ("is_array($body.list)", True),
        ("is_array($body.object)", False),
        ("is_object($body.object)", True),
        ("is_object(name)", False),
        ("is_primitive($body.object)", False),
        ("is_primitive($body.flag) and is_primitive(null)", True),
        ("is_primitive(missing)", False),
        ("is_bool(true)", True),
        ("is_bool($body.flag)", True),
        ("is_bool(name)", False),
        ("IS_DEFINED(name)", True),
        ("is_defined(missing)", False),
        ("is_defined(undefined)", False),
        ("is_defined(null)", True),
        ("is_defined(3 + as_number(name))", False),
        ("is_null(null)", True),
        ("is_null($body.missing)", True),
        ("is_null(missing)", False),
        ("is_number(12.34)", True),
        ("is_number(3 / 0)", False),
        ("is_number(number)", False),
        ("is_number(as_number(number))", True),
        ("is_number($body.huge)", False),
        ("is_number($body.nan)", False),
        ("is_string('a' || 'b')", True),
        ("is_string($body.number)", False),
        ("is_string(missing)", False),
    ],
)
def test_types(text: str, value: object) -> None:
    assert parse(text, ROUTES).value(MESSAGE.get) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("CONCAT('a', name, 'd')", "avalue1d"),
        ("concat('a', missing)", UNDEFINED),
        ("concat($body.text, '!')", "One Microsoft Way!"),
        ("length('press')", 5.0),
        ("length(missing)", UNDEFINED),
        ("length($body.number)", UNDEFINED),
        ("lower('AbC') || upper('AbC')", "abcABC"),
        ("substring('abc', 1)", "bc"),
        ("substring('abc', 3)", ""),
        ("substring('abc', 4)", UNDEFINED),
        ("substring('abc', -1)", UNDEFINED),
        ("substring('abc', 1, 1)", "b"),
        ("substring('abc', 1, 0)", ""),
        ("substring('abc', 1, 3)", UNDEFINED),
        ("substring('abc', 3, 0)", UNDEFINED),
        ("substring('abc', 1, -2)", UNDEFINED),
        ("substring('abc', 1 % 0)", UNDEFINED),
        ("substring($body.text, length($body.text) - 3)", "Way"),
        ("index_of('abcdef', 'cd')", 2.0),
        ("index_of('abc', 'xz')", -1.0),
        ("starts_with(name, 'val')", True),
        ("starts_with(missing, 'val')", UNDEFINED),
        ("ends_with(name, '1')", True),
        ("contains($body.text, 'Microsoft')", True),
        ("contains($body.text, 'microsoft')", False),
        ("NOT contains(name, 'x')", True),
    ],
)
def test_texts(text: str, value: object) -> None:
    assert parse(text, ROUTES).value(MESSAGE.get) == value


PRIMITIVES = st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=5))
VALUES = st.one_of(PRIMITIVES, st.sampled_from([UNDEFINED, [], {}]))


@given(st.sampled_from(sorted(FUNCTIONS)), st.lists(VALUES, min_size=3, max_size=3))
@settings(max_examples=500)
def test_no_value_breaks_a_function(name: str, values: list[object]) -> None:
    function = FUNCTIONS[name]
    result = function(*values[: len(function.parameters)])
    assert result is UNDEFINED or isinstance(result, bool | float | str)
