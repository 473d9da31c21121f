import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.deployment.conditions import parse
from edgeclave.errors import ConfigurationError

VALUES = {
    "level": "31.5",
    "kind": "alert",
    "flag": "true",
    "$body.machine.temperature": 21.5,
    "$body.ok": True,
    "$contentType": "application/json",
    "my-name": "x",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("kind = 'alert'", True, id="text property"),
        pytest.param('kind = "alert"', True, id="double quotes"),
        pytest.param("kind = 'Alert'", False, id="text compares exactly"),
        pytest.param("kind <> 'alert'", False, id="not equal"),
        pytest.param("kind != 'other'", True, id="not equal, other sign"),
        pytest.param("level > 30", True, id="a property that looks like a number"),
        pytest.param("level <= 31.4", False, id="decimals"),
        pytest.param("30 < level", True, id="literal first"),
        pytest.param("kind > 30", False, id="a text beside a number is undefined"),
        pytest.param("NOT kind > 30", False, id="undefined negated stays undefined"),
        pytest.param("flag = true", True, id="boolean"),
        pytest.param("$body.ok = true AND $body.machine.temperature > 21", True, id="body"),
        pytest.param("$body.missing = 1", False, id="missing in the body"),
        pytest.param("missing = 'x' OR kind = 'alert'", True, id="undefined or true"),
        pytest.param("missing = 'x' AND kind = 'alert'", False, id="undefined and true"),
        pytest.param("NOT (kind = 'x' OR kind = 'y')", True, id="not, parentheses"),
        pytest.param("not not kind = 'alert'", True, id="double negation, small letters"),
        pytest.param("kind = 'a' OR kind = 'alert' AND level > 40", False, id="and binds tighter than or"),
        pytest.param("kind IN ['x', 'alert']", True, id="in a list"),
        pytest.param("IS_DEFINED(kind) AND NOT IS_DEFINED(nothing)", True, id="is_defined"),
        pytest.param("$contentType = 'application/json'", True, id="system property"),
        pytest.param("my-name = 'x'", True, id="name with a dash"),
        pytest.param("true", True, id="constant"),
        pytest.param("kind", False, id="a bare text is not true"),
        pytest.param(r"kind = 'al\ert'", True, id="escaped character"),
    ],
)
def test_matches(text: str, expected: bool) -> None:
    assert parse(text).matches(VALUES.get) is expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("kind = ", "found its end", id="nothing to compare with"),
        pytest.param("kind = 'alert", "cannot read", id="quote not closed"),
        pytest.param("(kind = 'a'", "expected ')'", id="parenthesis not closed"),
        pytest.param("kind = 'a' kind = 'b'", "unexpected 'kind'", id="two conditions side by side"),
        pytest.param("kind == 'a'", "expected a property", id="two equal signs"),
        pytest.param("kind && level", "cannot read", id="another language's and"),
        pytest.param("upper(kind) = 'A'", "upper", id="unknown function"),
        pytest.param("kind IN 'a'", "expected '['", id="in without a list"),
        pytest.param("(" * 100 + "a" + ")" * 100, "nested", id="nested without end"),
        pytest.param("a OR " * 2000 + "a", "characters", id="too long"),
    ],
)
def test_refuses_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(text, where="routes.r")
    assert refused.value.code == "bad-condition"
    assert reason in refused.value.what
    assert refused.value.where == "routes.r"


@given(st.text(alphabet="abk=<>()'\" 019.$ANDORNT[],", max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        parse(text).matches(VALUES.get)
