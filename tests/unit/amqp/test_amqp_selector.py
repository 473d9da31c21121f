from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.simulator.amqp.log import LogEntry
from edgeclave.simulator.amqp.selector import FILTER_NAME, StartPosition, parse_selector, resolve, start_of
from edgeclave.simulator.amqp.types import AmqpError, Described, Symbol


class Entries:
    """Sequences 10 to 19; offset is a hundred times, time a thousand times the sequence."""

    partitions = ("0",)

    def read(self, partition: str, after_sequence: int, limit: int) -> list[LogEntry]:
        first = max(after_sequence + 1, 10)
        return [LogEntry(n, str(n * 100), n * 1000, b"") for n in range(first, min(20, first + limit))]

    def bounds(self, partition: str) -> tuple[int, int, int]:
        return 10, 19, 19_000

    async def wait(self, partition: str, after_sequence: int) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("selector", "first"),
    [
        pytest.param("x-opt-offset > '-1'", 10, id="earliest"),
        pytest.param("x-opt-offset > '@latest'", None, id="latest"),
        pytest.param("x-opt-offset > '1300'", 14, id="after an offset"),
        pytest.param("x-opt-offset >= '1300'", 13, id="from an offset on"),
        pytest.param("x-opt-offset > '1350'", 14, id="after an offset between two"),
        pytest.param("x-opt-offset > '5'", 10, id="after an offset that is gone"),
        pytest.param("x-opt-offset > '999999'", None, id="after an offset that is not there yet"),
        pytest.param("x-opt-sequence-number > '12'", 13, id="after a sequence number"),
        pytest.param("x-opt-sequence-number >= '12'", 12, id="from a sequence number on"),
        pytest.param("x-opt-sequence-number > '0'", 10, id="after a sequence number that is gone"),
        pytest.param("x-opt-enqueued-time > '15000'", 16, id="after a time"),
        pytest.param("x-opt-enqueued-time >= '15000'", 15, id="from a time on"),
        pytest.param("x-opt-enqueued-time > '15001'", 16, id="after a time between two"),
    ],
)
def test_a_selector_finds_its_first_event(selector: str, first: int | None) -> None:
    log = Entries()
    entries = log.read("0", resolve(log, "0", parse_selector("amqp.annotation." + selector)), 1)
    assert (entries[0].sequence if entries else None) == first


@pytest.mark.parametrize(
    "filters",
    [
        pytest.param(None, id="no filter set"),
        pytest.param({}, id="empty filter set"),
        pytest.param({Symbol(FILTER_NAME): "amqp.annotation.x-opt-offset > '-1'"}, id="not described"),
        pytest.param(
            {Symbol(FILTER_NAME): Described(Symbol(FILTER_NAME), "amqp.annotation.x-opt-offset > '-1'")}, id="described"
        ),
    ],
)
def test_without_a_position_a_link_starts_at_the_first_event(filters: Any) -> None:
    assert start_of(filters) == StartPosition()


@pytest.mark.parametrize(
    "filters",
    [
        pytest.param({Symbol("other"): "x"}, id="another filter"),
        pytest.param({Symbol(FILTER_NAME): 7}, id="a number"),
        pytest.param({Symbol(FILTER_NAME): "1=1"}, id="another expression"),
        pytest.param({Symbol(FILTER_NAME): "amqp.annotation.x-opt-offset > '1' OR 1=1"}, id="more than a comparison"),
        pytest.param({Symbol(FILTER_NAME): "amqp.annotation.x-opt-sequence-number > '@latest'"}, id="latest sequence"),
        pytest.param({Symbol(FILTER_NAME): "amqp.annotation.x-opt-offset > '" + "9" * 400 + "'"}, id="huge number"),
    ],
)
def test_other_filters_are_refused_rather_than_ignored(filters: Any) -> None:
    with pytest.raises(AmqpError) as caught:
        start_of(filters)
    assert caught.value.condition == "amqp:invalid-field"


@given(st.text(max_size=100))
def test_garbage_selectors_are_refused(text: str) -> None:
    with pytest.raises(AmqpError):
        parse_selector(text)
