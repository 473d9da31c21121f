from __future__ import annotations

from collections.abc import Callable

import pytest

from edgeclave.enclave.messages import Caller
from edgeclave.enclave.state import (
    MAX_COUNTERS,
    MAX_ENTRIES,
    MAX_KEY_BYTES,
    MAX_STORED_BYTES,
    MAX_VALUE_BYTES,
    Snapshot,
)
from edgeclave.enclave.transaction import (
    MAX_RESULT_BYTES,
    MAX_RESULT_BYTES_PER_CALL,
    MAX_RESULTS_PER_CALL,
    ServiceError,
    Transaction,
)

SNAPSHOT = Snapshot(entries={"kept": "old", "gone": "x"}, counters={"n": 5})


def transaction(snapshot: Snapshot = SNAPSHOT) -> Transaction:
    return Transaction(snapshot, Caller(), 0, lambda output: 10)


def test_reads_its_own_writes_and_leaves_the_snapshot_alone() -> None:
    call = transaction()
    call.put("kept", "new")
    call.put("added", "1")
    call.delete("gone")
    assert (call.get("kept"), call.get("added"), call.get("gone"), call.get("never")) == ("new", "1", None, None)
    changed = call.changed_snapshot()
    assert changed is not None
    assert changed.entries == {"kept": "new", "added": "1"}
    assert SNAPSHOT.entries == {"kept": "old", "gone": "x"}


def test_counters_step_from_the_snapshot() -> None:
    call = transaction()
    assert [call.increment("n"), call.increment("n"), call.increment("new")] == [6, 7, 1]
    changed = call.changed_snapshot()
    assert changed is not None
    assert changed.counters == {"n": 7, "new": 1}


def test_a_call_that_only_reads_and_emits_changes_no_state() -> None:
    call = transaction()
    call.get("kept")
    assert [call.emit("out", "1"), call.emit("out", "2"), call.emit("other", "3")] == [10, 11, 10]
    assert call.changed_snapshot() is None
    assert call.has_effects


@pytest.mark.parametrize("payload", ["", "x", "1 2", '{"a":', "NaN", '"\\ud800"', "[" * 100_000])
def test_a_result_that_is_not_json_is_refused_and_takes_no_number(payload: str) -> None:
    call = transaction()
    with pytest.raises(ServiceError, match="the result is not JSON"):
        call.emit("out", payload)
    assert not call.has_effects
    assert call.emit("out", "1") == 10


def full_of_entries() -> Transaction:
    return transaction(Snapshot(entries={str(number): "" for number in range(MAX_ENTRIES)}))


def full_of_bytes() -> Transaction:
    value = "x" * (MAX_VALUE_BYTES - 1)
    return transaction(Snapshot(entries={str(number): value for number in range(MAX_STORED_BYTES // MAX_VALUE_BYTES)}))


def full_of_counters() -> Transaction:
    return transaction(Snapshot(counters={str(number): 1 for number in range(MAX_COUNTERS)}))


@pytest.mark.parametrize(
    ("make", "act", "says"),
    [
        pytest.param(transaction, lambda call: call.put("", "x"), "a key must have", id="an empty key"),
        pytest.param(
            transaction, lambda call: call.get("é" * MAX_KEY_BYTES), "a key must have", id="a key too long in UTF-8"
        ),
        pytest.param(
            transaction, lambda call: call.put("k", "x" * (MAX_VALUE_BYTES + 1)), "value too large", id="a large value"
        ),
        pytest.param(full_of_entries, lambda call: call.put("one more", ""), "storage full", id="too many entries"),
        pytest.param(full_of_bytes, lambda call: call.put("more", "x" * 100), "storage full", id="too many bytes"),
        pytest.param(full_of_counters, lambda call: call.increment("more"), "too many counters", id="many counters"),
        pytest.param(
            transaction,
            lambda call: call.emit("out", "x" * (MAX_RESULT_BYTES + 1)),
            "result too large",
            id="large result",
        ),
        pytest.param(
            transaction,
            lambda call: [call.emit("out", "1") for _ in range(MAX_RESULTS_PER_CALL + 1)],
            "too many results",
            id="too many results in one call",
        ),
        pytest.param(
            transaction,
            lambda call: [
                call.emit("out", "1" * MAX_RESULT_BYTES)
                for _ in range(MAX_RESULT_BYTES_PER_CALL // MAX_RESULT_BYTES + 1)
            ],
            "too much in one call",
            id="too many bytes of results in one call",
        ),
    ],
)
def test_limits_are_error_strings(
    make: Callable[[], Transaction], act: Callable[[Transaction], object], says: str
) -> None:
    with pytest.raises(ServiceError, match=says):
        act(make())


def test_room_that_a_delete_makes_can_be_used() -> None:
    call = full_of_entries()
    call.delete("7")
    call.put("instead", "")
    call.put("instead", "")
    assert call.get("7") is None
    with pytest.raises(ServiceError, match="storage full"):
        call.put("one more", "")
