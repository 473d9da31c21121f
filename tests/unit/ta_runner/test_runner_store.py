from __future__ import annotations

from pathlib import Path

import pytest
import ta_runner.store
from ta_runner.delivery import Delivery
from ta_runner.store import CallKey, RunnerStore, StoredAnswer

from edgeclave.edge.outbox import Outbox
from edgeclave.edge.twins.trusted_apps import TrustedAppSettings
from edgeclave.enclave.messages import IdentityView, LimitsView, ManifestView, SealedResult, Started

SETTINGS = TrustedAppSettings(package="/a.ta", digest="sha256:" + "a" * 64, signer="b" * 64)
STARTED = Started(
    identity=IdentityView(b"u" * 32, b"s" * 32, 1, 1, False),
    manifest=ManifestView("a", "1", {}, (), LimitsView(16, 1000, 64)),
    instance_id=b"i" * 32,
    epoch=1,
    evidence=b"evidence",
    open_record=b"open",
    state=b"first",
    compiled=False,
)


def key(call_id: str, caller: str = "c") -> CallKey:
    return CallKey("a", caller, call_id)


def test_new_instance_keeps_calls_and_begins_without_results(store: RunnerStore, tmp_path: Path) -> None:
    with store.transaction():
        store.begin_instance("a", SETTINGS, STARTED, 1)
        store.advance("a", b"second", [SealedResult("out", 1, b"one"), SealedResult("out", 2, b"two")])
        store.put_answer(key("1"), b"answer", awaits_acknowledgement=True)
    slot = RunnerStore(tmp_path / "runner.sqlite").slot("a")
    assert slot is not None
    assert (slot.settings, slot.state, slot.open_record) == (SETTINGS, b"second", b"open")
    assert store.last_results("a") == {"out": b"two"}
    with store.transaction():
        store.begin_instance("a", SETTINGS, STARTED, 2)
    assert store.last_results("a") == {}
    assert store.answer(key("1")) == StoredAnswer(b"answer")


def test_last_result_outlives_its_acknowledgement(store: RunnerStore) -> None:
    with store.transaction():
        store.begin_instance("a", SETTINGS, STARTED, 1)
        store.advance("a", None, [SealedResult("out", 1, b"one")])
        store.put_answer(key("1"), b"answer", awaits_acknowledgement=True)
    assert store.unacknowledged("a", "c") == (1, 6)
    with store.transaction():
        assert store.acknowledge("a", "c", ["1"]) == 1
    assert store.unacknowledged("a", "c") == (0, 0)
    assert store.answer(key("1")) == StoredAnswer(None)
    assert store.last_results("a") == {"out": b"one"}


def test_rolled_back_transaction_leaves_no_count_behind(store: RunnerStore) -> None:
    def fails() -> None:
        with store.transaction():
            store.put_answer(key("1"), b"answer", awaits_acknowledgement=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert store.unacknowledged("a", "c") == (0, 0)
    assert store.answer(key("1")) is None


def test_settled_calls_are_forgotten_oldest_first(store: RunnerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ta_runner.store, "SETTLED_CALLS_KEPT", 3)
    monkeypatch.setattr(ta_runner.store, "_PRUNE_EVERY", 1)
    with store.transaction():
        store.put_answer(key("kept"), b"answer", awaits_acknowledgement=True)
        for number in range(10):
            store.put_answer(key(str(number)), b"answer", awaits_acknowledgement=False)
    known = [call_id for call_id in map(str, range(10)) if store.answer(key(call_id))]
    assert known == ["7", "8", "9"]
    assert store.answer(key("kept")) == StoredAnswer(b"answer")


def test_removed_slot_keeps_state_and_forgets_what_it_ran(store: RunnerStore) -> None:
    with store.transaction():
        store.begin_instance("a", SETTINGS, STARTED, 1)
        store.set_settings("a", None)
    slot = store.slot("a")
    assert slot is not None
    assert (slot.settings, slot.state) == (None, b"first")
    assert store.slots() == ["a"]


def test_evidence_is_repeated_unless_it_still_waits(store: RunnerStore, outbox: Outbox, delivery: Delivery) -> None:
    with store.transaction():
        message = delivery.put_opening("a", b"evidence", b"open")
        store.begin_instance("a", SETTINGS, STARTED, message)
    assert not delivery.repeat_evidence_of("a")
    with store.transaction():
        store.connection.execute("DELETE FROM outbox")
    assert delivery.repeat_evidence_of("a")
    assert not delivery.repeat_evidence_of("a")
    assert not delivery.repeat_evidence_of("never ran")
    assert len(outbox) == 1
