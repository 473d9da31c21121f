import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.store import Store
from edgeclave.simulator.twin_document import Section, difference, load, merge, stamped
from edgeclave.simulator.twins import DesiredChange, Twins

MODULE = IdentityName("edge01", "m1")

NAMES = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=4)
SECTIONS = st.dictionaries(
    NAMES,
    st.recursive(
        st.integers(-5, 5) | st.booleans() | st.text(max_size=4) | st.lists(st.integers(0, 3), max_size=2),
        lambda below: st.dictionaries(NAMES, below, min_size=1, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(SECTIONS, SECTIONS)
def test_the_difference_is_the_patch_from_old_to_new(old: Section, new: Section) -> None:
    assert json.dumps(merge(old, difference(old, new)), sort_keys=True) == json.dumps(new, sort_keys=True)
    assert difference(new, new) == {}


@pytest.mark.parametrize(
    ("patch", "place"),
    [
        pytest.param([1], "properties.reported", id="not an object"),
        pytest.param({"a b": 1}, "properties.reported", id="space in a name"),
        pytest.param({"a.b": 1}, "properties.reported", id="dot in a name"),
        pytest.param({"$a": 1}, "properties.reported", id="$ in a name"),
        pytest.param({"": 1}, "properties.reported", id="empty name"),
        pytest.param({"x": {"a\n": 1}}, "properties.reported.x", id="control character in a name below"),
        pytest.param({"x": "y" * 5000}, "properties.reported.x", id="text over 4 KB"),
        pytest.param({"x": [{"y": 2**60}]}, "properties.reported.x[0].y", id="integer over 53 bits"),
        pytest.param({f"k{n}": "y" * 4000 for n in range(9)}, "properties.reported", id="over 32 KB"),
        pytest.param(json.loads('{"a":' * 11 + "1" + "}" * 11), "properties.reported.a.a", id="eleven levels"),
    ],
)
def test_reported_refuses_what_azure_refuses(twins: Twins, patch: object, place: str) -> None:
    with pytest.raises(HubError) as refused:
        twins.patch_reported(MODULE, patch)
    assert refused.value.status == 400
    assert refused.value.where.startswith(place)
    assert twins.get(MODULE).reported == {}


def test_sizes_count_characters_not_their_escapes(twins: Twins) -> None:
    desired = {f"k{number}": 2000 * "ж" for number in range(8)}
    twins.update(MODULE, desired=desired)
    with pytest.raises(HubError, match="has 36018 bytes, the limit is 32768"):
        twins.update(MODULE, desired={"k8": 2000 * "ж"})
    assert twins.get(MODULE).desired == desired


def test_ten_levels_are_accepted(twins: Twins) -> None:
    assert twins.patch_reported(MODULE, json.loads('{"a":' * 10 + "1" + "}" * 10)) == 2


def test_patches_merge_and_count_versions(twins: Twins) -> None:
    twins.update(MODULE, desired={"a": {"b": 1, "c": 2}, "$version": 99, "$metadata": {}})
    twins.update(MODULE, desired={"a": {"b": None}})
    twin = twins.get(MODULE)
    assert (twin.desired, twin.desired_version) == ({"a": {"c": 2}}, 3)
    twins.update(MODULE, desired={"d": 1}, replace=True)
    assert twins.get(MODULE).desired == {"d": 1}


def test_the_service_sees_when_and_by_which_version_each_property_was_changed(twins: Twins) -> None:
    twins.update(MODULE, desired={"a": {"b": 1, "c": 2}, "d": [1]})
    twins.update(MODULE, desired={"a": {"b": 3}, "d": None})
    metadata = twins.get(MODULE).for_service()["desired"]["$metadata"]
    versions = {"top": metadata, "a": metadata["a"], "b": metadata["a"]["b"], "c": metadata["a"]["c"]}
    assert {name: each["$lastUpdatedVersion"] for name, each in versions.items()} == {"top": 3, "a": 3, "b": 3, "c": 2}
    assert "d" not in metadata
    twins.patch_reported(MODULE, {"r": {"s": 1}})
    assert set(twins.get(MODULE).for_service()["reported"]["$metadata"]["r"]["s"]) == {"$lastUpdated"}


@given(SECTIONS, SECTIONS)
def test_all_properties_have_metadata_and_nothing_else_has(old: Section, new: Section) -> None:
    metadata = stamped(stamped({}, old, {"$v": 1}), difference(old, new), {"$v": 2})
    assert _names_of(metadata) == _names_of(new)


def _names_of(section: object) -> object:
    if not isinstance(section, dict):
        return {}
    return {key: _names_of(below) for key, below in section.items() if not key.startswith("$")}


def test_the_same_again_changes_nothing(twins: Twins) -> None:
    before = twins.update(MODULE, desired={"a": 1}, tags={"t": "x"})
    assert twins.update(MODULE, desired={"a": 1}, tags={"t": "x"}, replace=True) == before


def test_a_stale_etag_is_refused_and_reported_properties_do_not_make_one_stale(twins: Twins) -> None:
    first = twins.update(MODULE, desired={"a": 1})
    twins.patch_reported(MODULE, {"r": 1})
    second = twins.update(MODULE, desired={"a": 2}, if_match=first.etag)
    with pytest.raises(HubError) as refused:
        twins.update(MODULE, desired={"a": 3}, if_match=first.etag)
    assert refused.value.status == 412
    assert twins.get(MODULE).desired == {"a": 2}
    assert second.version == 4


def test_listeners_hear_of_a_change_once_it_is_on_disk(twins: Twins, store: Store) -> None:
    heard: list[DesiredChange] = []
    twins.on_desired.append(heard.append)
    twins.update(MODULE, desired={"a": 1, "b": 2})
    assert heard == []
    store.commit()
    twins.update(MODULE, desired={"a": 1}, replace=True)
    store.commit()
    assert [(change.patch, change.version) for change in heard] == [({"a": 1, "b": 2}, 2), ({"b": None}, 3)]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="cut short"),
        pytest.param(b"\xff", id="not UTF-8"),
        pytest.param(b'{"a": NaN}', id="NaN"),
        pytest.param(b'{"a": 1e999}', id="a number beyond all"),
        pytest.param(b'{"a": "\\uD800"}', id="half a character"),
        pytest.param(b'{"a\xed\xa0\x80": 1}', id="half a character, raw"),
        pytest.param(b"[" * 100_000, id="nested without end"),
    ],
)
def test_bad_json_is_refused(body: bytes) -> None:
    with pytest.raises(HubError):
        load(body, "body")
