"""Every place of a JSON text has the line where it stands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.deployment.located_json import MAX_JSON_DEPTH, read
from edgeclave.errors import ConfigurationError

Place = tuple[str | int, ...]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=20,
)


def places(value: Any, path: Place = ()) -> Iterator[Place]:
    if path:
        yield path
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in below:
        yield from places(each, (*path, key))


@given(values, st.sampled_from([None, 0, 2]))
def test_every_place_has_a_line(value: Any, indent: int | None) -> None:
    located = read(json.dumps(value, indent=indent), "x.json")
    assert located.value == value
    assert set(located.lines) == set(places(value))
    assert located.repeated == []


@given(values)
def test_written_one_place_a_line_the_lines_count_up(value: Any) -> None:
    """json.dumps with an indent begins a line for each name and each element, in the order of the walk."""
    text = json.dumps(value, indent=1)
    lines = read(text, "x.json").lines
    found = [lines[place] for place in places(value)]
    assert found == sorted(set(found))
    for place in lines:
        line = text.splitlines()[lines[place] - 1].strip()
        assert isinstance(place[-1], int) or line.startswith(json.dumps(place[-1]) + ":")


def test_repeated_names_at_every_depth() -> None:
    text = '{"a": 1,\n "b": [{"c": 1,\n  "c": "{\\"c\\": 2}"}],\n "a": {"a": 3}}'
    located = read(text, "x.json")
    assert [(each.path, each.first_line) for each in located.repeated] == [(("b", 0, "c"), 2), (("a",), 1)]
    assert located.lines[("a",)] == 4


@pytest.mark.parametrize(
    ("text", "where"),
    [
        pytest.param('{\n "a": 1,\n}', "line 3, column 1", id="comma too many"),
        pytest.param('{"b": "NaN",\n "a": NaN}', "x.json, line 2", id="not a number"),
        pytest.param('[\n\n1, -Infinity]', "x.json, line 3", id="a number without end"),
        pytest.param("{\n\"a\": 1" + "0" * 5000 + "}", "x.json, line 2", id="a number of 5,000 digits"),
        pytest.param('{"a": "\\ud83d\\ude00",\n "b": "\\uD800"}', "x.json, line 2", id="half a character"),
        pytest.param("[" * MAX_JSON_DEPTH + "\n[" + "]" * 65, "x.json, line 2", id="nested too deeply"),
        pytest.param("[\n" * 200_000, f"x.json, line {MAX_JSON_DEPTH + 1}", id="nested without end"),
    ],
)  # fmt: skip
def test_not_json(text: str, where: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read(text, "x.json")
    assert (refused.value.code, where in refused.value.where) == ("bad-json", True)
