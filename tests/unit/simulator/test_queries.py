"""IoT Hub's query language over twins."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.queries import parse_query

TWINS: list[dict[str, Any]] = [
    {"deviceId": "a", "status": "enabled", "tags": {"site": "n", "floor": 1}, "properties": {"reported": {"t": 20}}},
    {"deviceId": "b", "status": "enabled", "tags": {"site": "n", "floor": 2}, "properties": {"reported": {"t": 30.5}}},
    {"deviceId": "c", "status": "disabled", "tags": {"site": "s"}, "configurations": {"x-1": {"status": "Applied"}}},
]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        pytest.param("tags.site = 'n'", "ab", id="tag"),
        pytest.param("tags.site = 'n' AND tags.floor > 1", "b", id="and"),
        pytest.param("tags.site = 's' OR tags.floor = 1", "ac", id="or"),
        pytest.param("NOT tags.site = 'n'", "c", id="not"),
        pytest.param("tags.floor != 1", "b", id="unequal: what is not defined does not match"),
        pytest.param("deviceId IN ['a', 'c']", "ac", id="in"),
        pytest.param("is_defined(tags.floor)", "ab", id="is_defined"),
        pytest.param("NOT is_defined(properties.reported.t)", "c", id="not defined"),
        pytest.param("properties.reported.t >= 30", "b", id="reported number"),
        pytest.param("tags['site'] = 'n'", "ab", id="name in brackets"),
        pytest.param("configurations.[[x-1]].status = 'Applied'", "c", id="status of a configuration"),
        pytest.param("(tags.site = 'n' AND (tags.floor = 2 OR tags.floor = 3))", "b", id="parentheses"),
        pytest.param("tags.site = 1", "", id="another type"),
    ],
)
def test_conditions(condition: str, expected: str) -> None:
    found = parse_query(f"SELECT * FROM devices WHERE {condition}").run(TWINS)
    assert "".join(twin["deviceId"] for twin in found) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("SELECT deviceId, tags.site FROM devices WHERE tags.floor = 2", [{"deviceId": "b", "site": "n"}],
                     id="properties"),
        pytest.param("SELECT tags.floor AS level FROM devices", [{"level": 1}, {"level": 2}, {}], id="names"),
        pytest.param("SELECT TOP 2 deviceId FROM devices", [{"deviceId": "a"}, {"deviceId": "b"}], id="the first two"),
        pytest.param("SELECT TOP 9 deviceId FROM devices WHERE tags.floor = 2", [{"deviceId": "b"}], id="fewer"),
        pytest.param("SELECT COUNT() AS n FROM devices", [{"n": 3}], id="count"),
        pytest.param("select count() from devices where status = 'disabled'", [{"$1": 1}], id="count without a name"),
        pytest.param(
            "SELECT tags.site AS site, COUNT() AS n FROM devices GROUP BY tags.site",
            [{"site": "n", "n": 2}, {"site": "s", "n": 1}], id="groups",
        ),
        pytest.param(
            "SELECT AVG(properties.reported.t) AS mean, MAX(tags.floor) AS top FROM devices",
            [{"mean": 25.25, "top": 2}], id="aggregates pass over what is not there",
        ),
        pytest.param("SELECT MIN(tags.nothing) AS m FROM devices", [{}], id="nothing to aggregate"),
    ],
)  # fmt: skip
def test_columns(query: str, expected: list[dict[str, Any]]) -> None:
    assert parse_query(query).run(TWINS) == expected


@pytest.mark.parametrize(
    ("query", "what"),
    [
        pytest.param("", "does not know", id="nothing"),
        pytest.param("SELECT * FROM jobs", "does not know", id="another source"),
        pytest.param("DELETE FROM devices", "does not know", id="no query"),
        pytest.param("SELECT * FROM devices WHERE (", "expected", id="condition cut short"),
        pytest.param("SELECT a b FROM devices", "cannot read", id="two words"),
        pytest.param("SELECT SUM() FROM devices", "cannot read", id="a sum of nothing"),
        pytest.param("SELECT deviceId, COUNT() FROM devices", "GROUP BY", id="a property beside a count"),
        pytest.param("SELECT COUNT() FROM devices GROUP BY 1", "not a property", id="a number as group"),
        pytest.param("SELECT " + "a," * 40 + "a FROM devices", "columns", id="too many columns"),
        pytest.param("SELECT * FROM devices WHERE " + "(" * 9000, "does not know", id="too long"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(query: str, what: str) -> None:
    with pytest.raises(HubError, match=what):
        parse_query(query)


@given(st.text(alphabet="SELECTFROMdevices*.,()[]'=<> WHEREGROUPBYand or\\\"1$-", max_size=200))
def test_any_text_is_a_query_or_a_refusal(text: str) -> None:
    for query in (text, f"SELECT * FROM devices WHERE {text}", f"SELECT {text} FROM devices"):
        try:
            parse_query(query).run(TWINS)
        except HubError as error:
            assert error.status == 400  # noqa: PT017 - both outcomes are right
