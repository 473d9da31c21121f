"""The unmodified azure-eventhub client, sync and asyncio, over TLS."""

from __future__ import annotations

import asyncio
import datetime
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest
from azure.eventhub import EventData, EventHubConsumerClient
from azure.eventhub.aio import EventHubConsumerClient as AsyncConsumer
from azure.eventhub.exceptions import AuthenticationError, EventHubError

from .conftest import HUB, Authority, SqliteLog, running

PATIENCE = 20.0


def body_of(event: EventData) -> bytes:
    return b"".join(cast("Iterable[bytes]", event.body))


async def receive(
    authority: Authority, count: int, starting_position: Any, *, after_ready: Any = None, **options: Any
) -> list[EventData]:
    """The first `count` events of all partitions."""
    client = AsyncConsumer.from_connection_string(
        authority.connection_string(), "$Default", connection_verify=authority.certificate, retry_total=0
    )
    got: list[EventData] = []
    done = asyncio.Event()

    async def on_event(context: Any, event: EventData | None) -> None:
        if event is not None:
            got.append(event)
        if len(got) >= count:
            done.set()

    async with client:
        task = asyncio.create_task(
            client.receive(on_event=on_event, starting_position=starting_position, max_wait_time=0.2, **options)
        )
        if after_ready:
            await asyncio.sleep(1.5)
            after_ready()
        try:
            await asyncio.wait_for(done.wait(), PATIENCE)
            await asyncio.sleep(0.2)
        finally:
            task.cancel()
    return got


async def test_an_event_arrives_as_iot_hub_annotates_it(log: SqliteLog, authority: Authority) -> None:
    log.append(
        "0",
        b"\x00\xffbody",
        enqueued_ms=1_700_000_000_123,
        properties={"edgeclave-slot": "anomaly"},
        content_type="application/edgeclave-result+cose",
        message_id="m1",
        iothub_connection_device_id="edge01",
        iothub_connection_module_id="sample_analytics",
        iothub_enqueuedtime="1700000000123",
    )
    async with running(log, authority):
        (event,) = await receive(authority, 1, "-1")
    assert body_of(event) == b"\x00\xffbody"
    assert event.content_type == "application/edgeclave-result+cose"
    assert event.message_id == "m1"
    assert event.properties == {b"edgeclave-slot": b"anomaly"}
    assert event.system_properties[b"iothub-connection-device-id"] == b"edge01"
    assert event.system_properties[b"iothub-connection-module-id"] == b"sample_analytics"
    assert (event.sequence_number, event.offset) == (0, "0")
    assert event.enqueued_time == datetime.datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=datetime.UTC)


async def test_all_partitions_are_read_in_order_and_new_events_follow(log: SqliteLog, authority: Authority) -> None:
    for number in range(1000):
        log.append(str(number % 2), number.to_bytes(2, "big"))
    async with running(log, authority):
        got = await receive(authority, 1001, "-1", after_ready=lambda: log.append("1", b"late"))
    bodies = [body_of(event) for event in got]
    numbers = [number.to_bytes(2, "big") for number in range(1000)]
    # Partitions are read side by side, so the late one may overtake those of the other partition.
    assert [body for body in bodies if body in numbers[0::2]] == numbers[0::2]
    assert [body for body in bodies if body not in numbers[0::2]] == [*numbers[1::2], b"late"]


async def test_messages_of_every_size_up_to_the_hubs_limit(log: SqliteLog, authority: Authority) -> None:
    sizes = [0, 1, 255, 256, 65_400, 65_408, 65_536, 131_072, 262_144]
    for size in sizes:
        log.append("0", bytes([size % 251]) * size)
    async with running(log, authority):
        got = await receive(authority, len(sizes), "-1")
    assert [body_of(event) for event in got] == [bytes([size % 251]) * size for size in sizes]


@pytest.mark.parametrize(
    ("position", "options", "expected"),
    [
        pytest.param("600", {}, [7, 8, 9], id="after an offset"),
        pytest.param("600", {"starting_position_inclusive": True}, [6, 7, 8, 9], id="from an offset on"),
        pytest.param(7, {}, [8, 9], id="after a sequence number"),
        pytest.param(
            datetime.datetime(2023, 11, 14, 22, 13, 28, tzinfo=datetime.UTC), {}, [9], id="after an enqueued time"
        ),
    ],
)
async def test_a_reader_starts_where_it_wants(
    log: SqliteLog, authority: Authority, position: Any, options: dict[str, Any], expected: list[int]
) -> None:
    for number in range(10):
        log.append("0", bytes([number]), enqueued_ms=1_700_000_000_000 + number * 1000)
    async with running(log, authority):
        got = await receive(authority, len(expected), position, partition_id="0", **options)
    assert [body_of(event)[0] for event in got] == expected


async def test_latest_is_only_what_comes_after(log: SqliteLog, authority: Authority) -> None:
    log.append("0", b"old")
    async with running(log, authority):
        got = await receive(authority, 1, "@latest", after_ready=lambda: log.append("0", b"new"))
    assert [body_of(event) for event in got] == [b"new"]


async def test_events_that_were_removed_are_passed_over(log: SqliteLog, authority: Authority) -> None:
    for number in range(10):
        log.append("0", bytes([number]))
    log.forget_before("0", 6)
    async with running(log, authority):
        got = await receive(authority, 4, "-1", partition_id="0")
    assert [event.sequence_number for event in got] == [6, 7, 8, 9]


async def test_hub_and_partition_properties(log: SqliteLog, authority: Authority) -> None:
    log.append("1", b"only", enqueued_ms=1_700_000_000_000)
    client = AsyncConsumer.from_connection_string(
        authority.connection_string(), "$Default", connection_verify=authority.certificate, retry_total=0
    )
    async with running(log, authority), client:
        hub = await client.get_eventhub_properties()
        empty = await client.get_partition_properties("0")
        filled = await client.get_partition_properties("1")
    assert hub["eventhub_name"] == HUB
    assert hub["partition_ids"] == ["0", "1"]
    assert empty["is_empty"]
    assert (filled["is_empty"], filled["last_enqueued_sequence_number"], filled["last_enqueued_offset"]) == (
        False,
        0,
        "0",
    )


def _sync_partition_ids(connection_string: str, authority: Authority) -> list[str]:
    client = EventHubConsumerClient.from_connection_string(
        connection_string, "$Default", connection_verify=authority.certificate, retry_total=0
    )
    with client:
        return client.get_partition_ids()


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"key": "b3RoZXI="}, id="wrong key"),
        pytest.param({"name": "device"}, id="wrong key name"),
        pytest.param({"hub": "other-hub"}, id="other hub"),
    ],
)
async def test_a_wrong_connection_string_is_an_authentication_error(
    log: SqliteLog, authority: Authority, changed: dict[str, str]
) -> None:
    async with running(log, authority):
        with pytest.raises(AuthenticationError):
            await asyncio.to_thread(_sync_partition_ids, authority.connection_string(**changed), authority)


async def test_an_unknown_partition_is_an_error_at_the_reader(log: SqliteLog, authority: Authority) -> None:
    client = AsyncConsumer.from_connection_string(
        authority.connection_string(), "$Default", connection_verify=authority.certificate, retry_total=0
    )
    async with running(log, authority), client:
        with pytest.raises(EventHubError):
            await client.get_partition_properties("7")


async def test_the_sync_client_reads_and_reconnects_after_a_restart(
    tmp_path: Path, log: SqliteLog, authority: Authority
) -> None:
    for number in range(5):
        log.append("0", bytes([number]))
    got: list[int] = []
    client = EventHubConsumerClient.from_connection_string(
        authority.connection_string(),
        "$Default",
        connection_verify=authority.certificate,
        retry_backoff_factor=0.1,
        retry_backoff_max=0.5,
    )

    def on_event(context: Any, event: EventData | None) -> None:
        if event is not None:
            got.append(body_of(event)[0])

    def run() -> None:
        client.receive(on_event=on_event, starting_position="-1", max_wait_time=0.2)

    thread = threading.Thread(target=run, daemon=True)
    async with running(log, authority):
        thread.start()
        await _until(lambda: len(got) == 5)
    log.append("0", b"\x05")
    async with running(SqliteLog(tmp_path / "log.sqlite"), authority):
        await _until(lambda: len(got) >= 6)
        await asyncio.to_thread(client.close)
    assert got == [0, 1, 2, 3, 4, 5]


async def _until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "nothing came in time"
        await asyncio.sleep(0.05)
