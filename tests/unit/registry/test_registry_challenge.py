from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.registry.challenge import MAX_CHALLENGES, MAX_PARAMETERS, Challenge, parse_challenges


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], [], id="no header"),
        pytest.param([""], [], id="an empty one"),
        pytest.param(['Basic realm="a b"'], [Challenge("basic", {"realm": "a b"})], id="Basic"),
        pytest.param(
            ['Bearer realm="https://r/token",service="r",scope="repository:a:pull,push"'],
            [Challenge("bearer", {"realm": "https://r/token", "service": "r", "scope": "repository:a:pull,push"})],
            id="Bearer, a comma in quotes",
        ),
        pytest.param(
            ['Basic realm="x", Bearer realm=y, error=invalid_token'],
            [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y", "error": "invalid_token"})],
            id="two in one header",
        ),
        pytest.param(
            ["Basic realm=x", "Bearer realm=y"],
            [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})],
            id="two headers",
        ),
        pytest.param(["Negotiate"], [Challenge("negotiate")], id="a scheme alone"),
        pytest.param(
            ["Negotiate YWJj=, Basic realm=x"],
            [Challenge("negotiate"), Challenge("basic", {"realm": "x"})],
            id="a token68",
        ),
        pytest.param(['bEARER Realm = "x"'], [Challenge("bearer", {"realm": "x"})], id="case and spaces"),
        pytest.param(
            [r'Basic realm="a\"b\\c"'], [Challenge("basic", {"realm": r"a\"b\c".replace('\\"', '"')})], id="escapes"
        ),
        pytest.param(["Basic realm=x, realm=y"], [Challenge("basic", {"realm": "x"})], id="the first of two counts"),
        pytest.param(['Basic realm="open'], [Challenge("basic")], id="quotes that do not end"),
        pytest.param(["\x00\x01"], [], id="no words"),
    ],
)
def test_parsed(headers: list[str], expected: list[Challenge]) -> None:
    assert parse_challenges(headers) == expected


_WORD = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True)
_QUOTED = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@given(st.lists(st.tuples(_WORD, st.dictionaries(_WORD.map(str.lower), _QUOTED, min_size=1, max_size=4)), max_size=4))
def test_what_is_written_is_read(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert parse_challenges([header]) == [Challenge(scheme.lower(), values) for scheme, values in challenges]


@given(st.lists(st.text(max_size=200) | st.text('abc="\\, ', max_size=200), max_size=3))
def test_anything_is_bounded_and_never_raises(headers: list[str]) -> None:
    found = parse_challenges(headers)
    assert len(found) <= MAX_CHALLENGES
    assert all(len(challenge.parameters) <= MAX_PARAMETERS for challenge in found)


@pytest.mark.parametrize("text", ['Basic a="' + "\\" * 100_000, "a=" * 50_000, "a " * 50_000, ", " * 50_000])
@pytest.mark.timeout(20)
def test_hostile_headers_take_no_time(text: str) -> None:
    parse_challenges([text] * 20)
