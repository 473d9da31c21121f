"""What the runner stores of a commit whose end it did not see."""

from __future__ import annotations

from typing import Any

import pytest
from ta_runner.commits import COMMITTED_BUT_TOO_LARGE, MAX_ANSWER_BYTES, Commits
from ta_runner.delivery import Delivery
from ta_runner.store import CallKey, RunnerStore

from edgeclave.edge.link import CallReply
from edgeclave.edge.link.messages import decode_reply
from edgeclave.edge.outbox import Outbox
from edgeclave.enclave.messages import Released, SealedResult

KEY = CallKey("small", "caller", "1")
RESULTS = (SealedResult("out", 1, b"one"), SealedResult("out", 2, b"two"))


@pytest.fixture
def commits(store: RunnerStore, delivery: Delivery, make_package: Any) -> Commits:
    commits = Commits("small", store, delivery)
    commits.settings = make_package().settings()
    commits.keep(b"first state")
    commits.take_up(Released(evidence=b"evidence", open_record=b"open"))
    return commits


def stored(store: RunnerStore) -> CallReply:
    answer = store.answer(KEY)
    assert answer is not None
    assert answer.answer is not None
    reply = decode_reply(answer.answer)
    assert isinstance(reply, CallReply)
    return reply


def state(store: RunnerStore) -> bytes:
    slot = store.slot("small")
    assert slot is not None
    return slot.state


def test_an_opening_begins_the_instance(commits: Commits, store: RunnerStore, outbox: Outbox) -> None:
    slot = store.slot("small")
    assert slot is not None
    assert (slot.state, slot.evidence, slot.open_record, slot.settings) == (
        b"first state",
        b"evidence",
        b"open",
        commits.settings,
    )
    assert (len(outbox), store.pending("small")) == (2, None)


@pytest.mark.parametrize(("upstream", "in_outbox"), [(False, 0), (True, 2)], ids=["for its caller", "upstream"])
def test_a_call_is_answered_late(
    commits: Commits, store: RunnerStore, outbox: Outbox, upstream: bool, in_outbox: int
) -> None:
    before = len(outbox)
    commits.under_way = (KEY, upstream)
    commits.keep(b"second state")
    commits.under_way = None
    assert state(store) == b"first state"
    commits.take_up(Released(call_id="1", reply="7", results=RESULTS))
    assert (state(store), store.pending("small")) == (b"second state", None)
    assert store.last_results("small") == {"out": b"two"}
    assert (stored(store).status, stored(store).payload) == (200, "7")
    assert len(stored(store).results) == (0 if upstream else 2)
    assert len(outbox) - before == in_outbox


def test_an_answer_too_large_for_the_link_loses_no_result(commits: Commits, store: RunnerStore, outbox: Outbox) -> None:
    before = len(outbox)
    commits.under_way = (KEY, False)
    commits.keep(b"second state")
    commits.take_up(Released(call_id="1", reply="x" * MAX_ANSWER_BYTES, results=RESULTS))
    assert (stored(store).status, stored(store).results) == (COMMITTED_BUT_TOO_LARGE, ())
    assert len(outbox) - before == 2


def test_heartbeats_go_upstream(commits: Commits, store: RunnerStore, outbox: Outbox) -> None:
    before = len(outbox)
    commits.keep(b"second state")
    commits.take_up(Released(results=RESULTS))
    assert (state(store), len(outbox) - before) == (b"second state", 2)


def test_a_stored_outcome_leaves_nothing_pending(commits: Commits, store: RunnerStore) -> None:
    commits.keep(b"second state")
    with store.transaction():
        store.advance("small", None, RESULTS)
    assert store.pending("small") is not None, "results alone say nothing of the state"
    with store.transaction():
        store.advance("small", b"second state", ())
    assert store.pending("small") is None
