"""Generated histories: whatever a host drops, repeats, reorders, restarts or rolls back, nothing is accepted out of
order, and every loss and every other line of history is reported.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from edgeclave.results.stream_state import OpenLink, ResultLink
from edgeclave.results.verdicts import Kind

STEPS = st.lists(st.sampled_from(["anomalies", "summary", "restart", "stop"]), min_size=1, max_size=14)
INCIDENTS = {Kind.EQUIVOCATION, Kind.ROLLBACK, Kind.FORK, Kind.RESET, Kind.REFUSED}


@pytest.fixture(scope="module")
def honest(make_device):
    """Builds the history of a device that does not lie."""

    def build(steps):
        device = make_device()
        device.start()
        for step in steps:
            if step == "stop":
                device.close()
            if step in ("restart", "stop"):
                device.restart()
            else:
                device.emit(step)
        return device

    return build


@given(steps=STEPS, data=st.data())
@settings(max_examples=150, deadline=None)
def test_an_honest_history_in_any_order_with_repetitions_is_accepted_whole(honest, make_reader, steps, data):
    device, reader = honest(steps), make_reader()
    repeated = data.draw(st.lists(st.sampled_from(device.sent), max_size=5))
    reader.take(*data.draw(st.permutations(device.sent + repeated)))
    assert_in_order(reader.accepted, device.sent)
    assert {link.digest for link in reader.accepted} == {
        link.digest for link in device.sent if isinstance(link, ResultLink)
    }
    assert reader.heads.pending() == []
    assert not reader.kinds() & INCIDENTS


@given(steps=STEPS, data=st.data())
@settings(max_examples=200, deadline=None)
def test_whatever_is_lost_before_something_received_is_reported(honest, make_reader, steps, data):
    device, reader = honest(steps), make_reader()
    may_be_lost = [message for message in device.sent if isinstance(message, OpenLink | ResultLink)]
    lost = data.draw(st.lists(st.sampled_from(may_be_lost), unique_by=lambda message: message.digest))
    received = [message for message in device.sent if message not in lost]
    reader.take(*data.draw(st.permutations(received)))
    assert_in_order(reader.accepted, device.sent)
    assert not reader.kinds() & INCIDENTS
    if missing_before_received(device.sent, lost):
        assert reader.heads.pending()
    for message in received:  # what does not come after a loss is not held up by it
        if isinstance(message, ResultLink) and not any(comes_before(other, message, device.sent) for other in lost):
            assert message in reader.accepted


def comes_before(lost, message, history):
    """Whether `message` cannot be accepted without `lost`."""
    if history.index(lost) > history.index(message):
        return False
    return isinstance(lost, OpenLink) or lost.output == message.output


def missing_before_received(history, lost):
    return any(
        comes_before(gone, message, history)
        for gone in lost
        for message in history
        if message not in lost and isinstance(message, ResultLink)
    )


def assert_in_order(accepted, history):
    """Each accepted result follows the one accepted before it on its output: in its chain, or over open records that
    name exactly that one.
    """
    opens = {link.instance_id: link for link in history if isinstance(link, OpenLink)}
    assert len({link.digest for link in accepted}) == len(accepted), "accepted twice"
    heads: dict[str, ResultLink] = {}
    for link in accepted:
        assert follows(heads.get(link.output), link, opens), f"{link} after {heads.get(link.output)}"
        heads[link.output] = link


def follows(last, link, opens):
    if last is not None and last.instance_id == link.instance_id:
        return link.sequence == last.sequence + 1 and link.previous == last.digest
    opened = opens[link.instance_id]
    if link.sequence != 1 or link.previous != opened.digest:
        return False
    while opened.predecessor is not None:
        named = opened.heads.get(link.output)
        if last is not None and opened.predecessor == last.instance_id:
            return named == (last.sequence, last.digest)
        if named is not None:
            return False
        opened = opens[opened.predecessor]
    return last is None


def host_machine(device_class, reader_class):
    class Host(RuleBasedStateMachine):
        """A host that restarts from any state it ever saw, and delivers what it likes, when and how often it likes."""

        def __init__(self):
            super().__init__()
            self.device, self.reader = device_class(), reader_class()
            self.device.start()
            self.states = [self.device.snapshot()]
            self.undelivered = list(self.device.sent)
            self.delivered = []

        def _note(self, message):
            self.undelivered.append(message)
            self.states.append(self.device.snapshot())

        @rule(output=st.sampled_from(["anomalies", "summary"]))
        def emit(self, output):
            self._note(self.device.emit(output))

        @rule()
        def restart(self):
            self._note(self.device.restart())

        @rule()
        def stop_and_restart(self):
            self.undelivered.append(self.device.close())
            self._note(self.device.restart())

        @rule(data=st.data())
        def roll_back(self, data):
            self._note(self.device.start(data.draw(st.sampled_from(self.states))))

        @rule()
        def begin_anew(self):
            self._note(self.device.start())

        @precondition(lambda self: self.undelivered)
        @rule(data=st.data())
        def deliver(self, data):
            message = self.undelivered.pop(data.draw(st.integers(0, len(self.undelivered) - 1)))
            self.delivered.append(message)
            self.reader.take(message)

        @precondition(lambda self: self.delivered)
        @rule(data=st.data())
        def deliver_again(self, data):
            before = len(self.reader.accepted)
            self.reader.take(data.draw(st.sampled_from(self.delivered)))
            assert len(self.reader.accepted) == before

        @invariant()
        def nothing_is_accepted_out_of_order(self):
            assert_in_order(self.reader.accepted, self.device.sent)

        def teardown(self):
            """Once everything was delivered, every line of history but one is reported."""
            self.reader.take(*self.undelivered)
            self.nothing_is_accepted_out_of_order()
            accepted = {link.digest for link in self.reader.accepted}
            withheld = [m for m in self.device.sent if isinstance(m, ResultLink) and m.digest not in accepted]
            opens = [message for message in self.device.sent if isinstance(message, OpenLink)]
            begun = [opened.predecessor for opened in opens]
            if len(set(begun)) < len(begun) or withheld:
                assert self.reader.kinds() & INCIDENTS
                assert self.reader.heads.pending()
            else:
                assert not self.reader.kinds() & INCIDENTS
                assert self.reader.heads.pending() == []

    return Host


def test_no_host_gets_anything_accepted_out_of_order(make_device, make_reader):
    run_state_machine_as_test(
        host_machine(make_device, make_reader),
        settings=settings(max_examples=80, stateful_step_count=25, deadline=None),
    )
