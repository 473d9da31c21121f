from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgeclave import cose
from edgeclave.cloud.events import Event, Position
from edgeclave.cloud.findings import Finding
from edgeclave.cloud.heads import DATABASE_NAME, HeadStore, StoredEvidence
from edgeclave.cloud.reader import Reader
from edgeclave.edge.store import StoreError
from edgeclave.errors import ConfigurationError, ResultError

from .conftest import Instance, World


def event(sequence: int, body: bytes = b"body", device: str = "edge01") -> Event:
    return Event("0", sequence, body, "application/edgeclave-result+cose", {"k": "v"}, device, "m")


def test_only_its_owner_can_read_the_store(tmp_path: Path) -> None:
    HeadStore(tmp_path / "a" / "reader").close()
    assert stat.S_IMODE((tmp_path / "a" / "reader" / DATABASE_NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a" / "reader").stat().st_mode) == 0o700


def test_a_second_reader_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    first = HeadStore(tmp_path / "reader")
    with pytest.raises(ConfigurationError) as caught:
        HeadStore(tmp_path / "reader")
    assert caught.value.code == "reader-already-running"
    first.close()
    HeadStore(tmp_path / "reader").close()


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError) as caught:
        HeadStore(tmp_path / "file" / "reader")
    assert caught.value.code == "reader-state-unusable"


def test_a_damaged_store_is_one_clear_error_and_lets_go_of_its_lock(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(b"no database" * 1000)
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            HeadStore(tmp_path)
        assert caught.value.code == "store-corrupt"


def test_a_transaction_that_fails_leaves_nothing(store: HeadStore) -> None:
    def fail_in_the_middle() -> None:
        with store.transaction():
            store.set_position("0", Position(1, bytes(32)))
            store.hold(event(1), b"wait", "no-evidence")
            store.add_finding(b"{}")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_the_middle()
    assert (store.positions(), store.take_held(b"wait"), store.findings()) == ({}, [], [])


def test_held_messages_come_back_as_they_went_and_once(store: HeadStore) -> None:
    messages = [event(number, bytes([number])) for number in range(3)]
    assert [store.hold(message, b"wait", "no-evidence") for message in messages] == [True] * 3
    assert not store.hold(event(9, bytes([1])), b"wait", "no-evidence")
    assert store.held_counts() == {"no-evidence": 3}
    assert store.take_held(b"wait") == messages
    assert store.take_held(b"wait") == []


def test_held_bytes_of_one_device_are_limited_and_come_free_again(
    store: HeadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeclave.cloud.heads.MAX_HELD_BYTES_PER_DEVICE", 1000)
    store.hold(event(1, bytes(1200)), b"wait", "no-evidence")
    with pytest.raises(ResultError) as caught:
        store.hold(event(2, b"two"), b"wait", "no-evidence")
    assert caught.value.code == "too-many-held"
    assert store.hold(event(3, b"three", device="edge02"), b"wait", "no-evidence")
    store.take_held(b"wait")
    assert store.hold(event(2, b"two"), b"wait", "no-evidence")


def test_evidence_counts_for_the_device_that_sent_it(store: HeadStore) -> None:
    stored = StoredEvidence("edge01", 5, b"evidence")
    assert store.add_evidence(b"d" * 32, b"i" * 32, stored)
    assert not store.add_evidence(b"d" * 32, b"i" * 32, stored)
    assert store.evidence(b"d" * 32, "edge01") == stored
    assert store.evidence_of_instance(b"i" * 32, "edge01") == stored
    assert store.evidence(b"d" * 32, "edge02") is None
    assert store.device_of_instance(b"i" * 32) == "edge01"


def test_the_oldest_evidence_of_a_device_makes_room(store: HeadStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeclave.cloud.heads.MAX_EVIDENCE_PER_DEVICE", 2)
    for number in range(3):
        store.add_evidence(bytes([number]) * 32, b"i" * 32, StoredEvidence("edge01", number, b"e"))
    assert [store.evidence(bytes([number]) * 32, "edge01") is None for number in range(3)] == [True, False, False]


def test_findings_stay_until_they_are_confirmed(world: World, store: HeadStore) -> None:
    reader = Reader(world.policy(), world.recipient_key, store)
    instance = Instance(world)
    found = reader.process_batch([*instance.begin(), instance.result({"n": 1})])
    assert reader.unconfirmed() == found
    reader.confirm(found[1])
    assert reader.unconfirmed() == found[2:]
    assert Reader(world.policy(), world.recipient_key, store).unconfirmed() == found[2:]


def test_numbers_are_never_given_out_twice(world: World, store: HeadStore) -> None:
    reader = Reader(world.policy(), world.recipient_key, store)
    instance = Instance(world)
    numbers = []
    for message in (*instance.begin(), *(instance.result(n) for n in range(3))):
        (found,) = reader.process(message)
        reader.confirm(found)
        numbers.append(found.number)
    assert numbers == [1, 2, 3, 4, 5]


def test_a_batch_that_cannot_be_stored_may_be_offered_again(
    world: World, store: HeadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(world.policy(), world.recipient_key, store)
    instance = Instance(world)
    reader.process_batch(instance.begin())
    batch = [instance.result(n) for n in range(3)]

    def full(partition: str, position: Position) -> None:
        raise StoreError("disk-full", "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "set_position", full)
        with pytest.raises(StoreError):
            reader.process_batch(batch)

    def results(findings: Sequence[Finding]) -> list[object]:
        return [finding.payload for finding in findings if finding.kind == "result"]

    assert results(reader.process_batch(batch)) == [0, 1, 2]
    assert results(reader.unconfirmed()) == [0, 1, 2]


def test_damaged_heads_stop_the_reader_instead_of_forgetting_history(world: World, store: HeadStore) -> None:
    reader = Reader(world.policy(), world.recipient_key, store)
    instance = Instance(world)
    reader.process_batch(instance.begin())
    for key in store.stream_keys():
        store.set_stream(key, b"damaged")
    with pytest.raises(ResultError) as caught:
        Reader(world.policy(), world.recipient_key, store).process(instance.result(1))
    assert caught.value.code == "bad-heads"


def test_nobody_can_accept_what_was_not_reported(world: World, store: HeadStore) -> None:
    reader = Reader(world.policy(), world.recipient_key, store)
    instance = Instance(world)
    reader.process_batch([*instance.begin(), instance.result(1)])
    for stranger in (cose.sha256(b"stranger"), instance.instance_id):
        with pytest.raises(ResultError) as caught:
            reader.accept_restart(stranger)
        assert caught.value.code == "no-such-instance"
        with pytest.raises(ResultError) as caught:
            reader.accept_loss(stranger, "anomalies")
        assert caught.value.code == "nothing-lost"
