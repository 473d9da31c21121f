from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.edge.twin import DesiredProperties, PatchOutcome, merge

MERGES = [
    # RFC 7396, appendix A
    pytest.param({"a": "b"}, {"a": "c"}, {"a": "c"}, id="replace"),
    pytest.param({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}, id="add"),
    pytest.param({"a": "b"}, {"a": None}, {}, id="remove"),
    pytest.param({"a": ["b"]}, {"a": "c"}, {"a": "c"}, id="array by value"),
    pytest.param({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}, id="inside an object"),
    pytest.param({"a": [1]}, {"a": {"b": 1}}, {"a": {"b": 1}}, id="object in place of an array"),
    pytest.param({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}, id="removal of what is not there"),
]


@pytest.mark.parametrize(("target", "patch", "merged"), MERGES)
def test_merge(target: dict[str, Any], patch: dict[str, Any], merged: dict[str, Any]) -> None:
    assert merge(target, patch) == merged


@pytest.mark.parametrize(
    ("patch", "outcome"),
    [
        pytest.param({"a": 2, "$version": 8}, PatchOutcome.MERGED, id="the next version"),
        pytest.param({"a": 2, "$version": 7}, PatchOutcome.OLD, id="the version already read"),
        pytest.param({"a": 2, "$version": 3}, PatchOutcome.OLD, id="an old version"),
        pytest.param({"a": 2, "$version": 9}, PatchOutcome.GAP, id="a patch was missed"),
        pytest.param({"a": 2}, PatchOutcome.GAP, id="no version"),
        pytest.param({"a": 2, "$version": "8"}, PatchOutcome.GAP, id="version as text"),
        pytest.param({"a": 2, "$version": True}, PatchOutcome.GAP, id="version as boolean"),
        pytest.param([1], PatchOutcome.GAP, id="not an object"),
    ],
)
def test_patch(patch: object, outcome: PatchOutcome) -> None:
    desired = DesiredProperties()
    desired.replace({"a": 1, "$version": 7, "$metadata": {}})
    assert desired.apply(patch) is outcome
    assert desired.value == ({"a": 2} if outcome is PatchOutcome.MERGED else {"a": 1})


def test_patch_before_the_first_read_asks_for_one() -> None:
    assert DesiredProperties().apply({"$version": 1}) is PatchOutcome.GAP


def test_value_is_the_callers_own() -> None:
    desired = DesiredProperties()
    desired.replace({"a": {"b": 1}})
    desired.value["a"]["b"] = 2
    assert desired.value == {"a": {"b": 1}}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(json_values, json_values)
def test_any_read_and_patch_are_taken(read: Any, patch: Any) -> None:
    desired = DesiredProperties()
    desired.replace(read)
    desired.apply(patch)
    assert isinstance(desired.value, dict)
