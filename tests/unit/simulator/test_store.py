import asyncio
import sqlite3
from pathlib import Path

import pytest

from edgeclave.edge.store import StoreError
from edgeclave.simulator.identities import Identities, IdentityName
from edgeclave.simulator.inputs import InputQueue
from edgeclave.simulator.message_log import StoredMessageLog
from edgeclave.simulator.store import Store


def put(store: Store, key: str) -> None:
    with store.write() as connection:
        connection.execute("INSERT INTO settings VALUES (?, '')", (key,))


def keys_on_disk(path: Path) -> list[str]:
    """As another process sees them: only what was committed."""
    with sqlite3.connect(path) as connection:
        return [row[0] for row in connection.execute("SELECT key FROM settings ORDER BY key")]


async def test_writes_of_one_turn_are_committed_together_and_told_afterwards(store: Store, tmp_path: Path) -> None:
    told: list[list[str]] = []
    for key in "abc":
        put(store, key)
        store.after_commit(lambda _error: told.append(keys_on_disk(tmp_path / "state.sqlite")))
    assert keys_on_disk(tmp_path / "state.sqlite") == []
    await store.committed()
    assert told == [["a", "b", "c"]] * 3


async def test_a_failing_step_leaves_nothing_and_does_not_take_the_others_with_it(store: Store, tmp_path: Path) -> None:
    told: list[str] = []
    put(store, "a")

    def fail() -> None:
        with store.write():
            put(store, "b")
            store.after_commit(lambda _error: told.append("b"))
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fail()
    put(store, "c")
    await store.committed()
    assert keys_on_disk(tmp_path / "state.sqlite") == ["a", "c"]
    assert told == []


async def test_who_waits_is_told_when_the_group_cannot_be_committed(store: Store, tmp_path: Path) -> None:
    put(store, "a")
    waiting = asyncio.ensure_future(store.committed())
    await asyncio.sleep(0)
    put(store, "b")
    store.connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreError) as refused, store.write() as connection:
        connection.execute("INSERT INTO settings VALUES ('big', ?)", ("x" * 1_000_000,))
    assert refused.value.code == "disk-full"
    await asyncio.wait([waiting])
    outcome = waiting.exception()
    assert outcome is None or isinstance(outcome, StoreError)
    on_disk = keys_on_disk(tmp_path / "state.sqlite")
    assert ("a" in on_disk) == (outcome is None), "acknowledged if and only if on disk"


async def test_the_log_shows_a_message_only_once_it_is_on_disk(store: Store) -> None:
    log = StoredMessageLog(store)
    log.append("edge01", b"1", {"p": "v"}, {"message-id": "m"})
    partition = next(each for each in log.partitions if log._next_sequence(each))
    assert log.bounds(partition) == (0, -1, 0)
    assert log.read(partition, -1, 10) == []
    waiting = asyncio.ensure_future(log.wait(partition, -1))
    await store.committed()
    await asyncio.wait_for(waiting, 1)
    (entry,) = log.read(partition, -1, 10)
    assert (entry.sequence, entry.offset, entry.body, entry.properties) == (0, "0", b"1", {"p": "v"})
    assert entry.system["message-id"] == "m"
    assert StoredMessageLog(store).read(partition, -1, 10) == [entry]


async def test_sequence_numbers_have_no_holes_after_a_failed_step(store: Store) -> None:
    log = StoredMessageLog(store)
    log.append("edge01", b"1", {}, {})

    def fail() -> None:
        with store.write():
            log.append("edge01", b"lost", {}, {})
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fail()
    log.append("edge01", b"2", {}, {})
    await store.committed()
    entries = [entry for each in log.partitions for entry in log.read(each, -1, 10)]
    assert [(entry.sequence, entry.body) for entry in entries] == [(0, b"1"), (1, b"2")]


async def test_inputs_wait_by_priority_and_age_until_removed_or_too_old(store: Store, identities: Identities) -> None:
    queue, target = InputQueue(store), IdentityName("edge01", "m1")
    queue.put(target, "late", b"", priority=9, time_to_live_seconds=60)
    queue.put(target, "first", b"", priority=0, time_to_live_seconds=60)
    queue.put(target, "second", b"", priority=0, time_to_live_seconds=60)
    queue.put(target, "expired", b"", priority=0, time_to_live_seconds=0)
    waiting = queue.next(target, 10)
    assert [each.topic for each in waiting] == ["first", "second", "late"]
    assert [each.topic for each in queue.next(target, 10, except_numbers={waiting[0].number})] == ["second", "late"]
    queue.remove(waiting[0].number)
    queue.forget_expired()
    await store.committed()
    assert store.connection.execute("SELECT count(*) FROM inputs").fetchone()[0] == 2
