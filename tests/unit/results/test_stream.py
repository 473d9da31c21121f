"""The reader's head rules, case by case (PROTOCOL section 8)."""

import dataclasses

import msgspec
import pytest

from edgeclave.errors import ResultError
from edgeclave.results.stream import Pending, StreamHeads
from edgeclave.results.stream_state import MAX_CHAIN, MAX_RECENT, MAX_WAITING
from edgeclave.results.verdicts import Kind, codes

OTHER = bytes([9]) * 32


def other(link):
    """The same place, other content."""
    return msgspec.structs.replace(link, digest=OTHER)


class TestOneInstance:
    def test_results_in_order_are_accepted(self, device, reader):
        device.start()
        for _ in range(3):
            device.emit()
        assert reader.take(*device.sent) == ["opened", "accepted", "accepted", "accepted"]
        assert reader.heads.pending() == []

    def test_the_same_result_again_is_a_duplicate(self, device, reader):
        device.start(), device.emit()
        assert reader.take(*device.sent, device.sent[1]) == ["opened", "accepted", "duplicate"]

    def test_a_duplicate_older_than_the_memory_is_still_not_accepted(self, device, reader):
        device.start()
        first = device.emit()
        for _ in range(MAX_RECENT + 1):
            device.emit()
        reader.take(*device.sent)
        assert reader.take(first) == ["duplicate-forgotten"]

    def test_another_result_for_the_same_place_stops_the_stream(self, device, reader):
        device.start()
        first = device.emit()
        assert reader.take(*device.sent, other(first)) == ["opened", "accepted", "equivocation"]
        assert reader.take(device.emit()) == ["stopped"]
        assert reader.heads.wanted() == []
        assert Pending("equivocation", "anomaly", "anomalies", first.instance_id) in reader.heads.pending()

    def test_equivocation_on_one_output_leaves_the_other_going(self, device, reader):
        device.start()
        first = device.emit("anomalies")
        assert reader.take(*device.sent, other(first)) == ["opened", "accepted", "equivocation"]
        assert reader.take(device.emit("summary")) == ["accepted"]

    def test_the_next_result_after_another_one_than_ours_is_an_equivocation(self, device, reader):
        device.start(), device.emit()
        reader.take(*device.sent)
        next_one = msgspec.structs.replace(device.emit(), previous=OTHER)
        assert reader.take(next_one) == ["equivocation"]

    def test_a_first_result_after_another_open_record_is_an_equivocation(self, device, reader):
        reader.take(device.start())
        assert reader.take(msgspec.structs.replace(device.emit(), previous=OTHER)) == ["equivocation"]

    def test_a_gap_holds_what_follows_and_its_filling_sets_it_free(self, device, reader):
        device.start()
        first, second, third = device.emit(), device.emit(), device.emit()
        assert reader.take(device.sent[0], third, second) == ["opened", "gap", "gap"]
        assert reader.heads.pending() == [Pending("gap", "anomaly", "anomalies", first.instance_id, 1, 2)]
        assert reader.take(first) == ["accepted", "accepted", "accepted"]
        assert reader.accepted == [first, second, third]
        assert reader.heads.pending() == []

    def test_two_held_for_one_place_are_an_equivocation_once_it_is_reached(self, device, reader):
        device.start()
        first, second = device.emit(), device.emit()
        reader.take(device.sent[0], second, other(second))
        assert reader.take(first) == ["accepted", "accepted", "equivocation"]
        assert reader.accepted == [first, second]

    def test_results_before_their_open_record_wait_for_it(self, device, reader):
        opened = device.start()
        first = device.emit()
        assert reader.take(first) == ["no-open-record"]
        assert reader.heads.pending() == [Pending("no-open-record", None, None, first.instance_id)]
        assert reader.take(opened) == ["opened", "accepted"]
        assert reader.heads.pending() == []

    def test_outputs_are_counted_apart(self, device, reader):
        device.start()
        links = [device.emit("anomalies"), device.emit("summary"), device.emit("anomalies"), device.emit("summary")]
        assert [link.sequence for link in links] == [1, 1, 2, 2]
        assert set(reader.take(*device.sent)) == {"opened", "accepted"}

    def test_one_output_with_a_gap_does_not_hold_the_other(self, device, reader):
        device.start()
        device.emit("anomalies")
        second, summary = device.emit("anomalies"), device.emit("summary")
        assert reader.take(device.sent[0], second, summary) == ["opened", "gap", "accepted"]

    def test_the_same_open_record_again_is_a_duplicate(self, device, reader):
        opened = device.start()
        assert reader.take(opened, opened) == ["opened", "duplicate"]

    def test_two_open_records_of_one_instance_stop_the_slot(self, device, reader):
        opened = device.start()
        assert reader.take(opened, other(opened)) == ["opened", "equivocation"]
        assert reader.take(device.emit()) == ["stopped"]


class TestRestart:
    @pytest.mark.parametrize("clean", [True, False], ids=["after a close record", "after a crash"])
    def test_the_stream_goes_on(self, device, reader, clean):
        device.start()
        device.emit(), device.emit()
        if clean:
            device.close()
        device.restart()
        device.emit()
        assert set(reader.take(*device.sent)) <= {"opened", "accepted", "closed"}
        assert len(reader.accepted) == 3
        assert reader.heads.pending() == []

    def test_an_upgrade_is_a_restart_like_any_other(self, device, reader):
        """Neither unique_id nor security version is part of the stream."""
        device.start(), device.emit()
        device.restart(), device.emit()
        assert reader.take(*device.sent) == ["opened", "accepted", "opened", "accepted"]

    def test_an_open_record_that_overtakes_results_waits_for_them(self, device, reader):
        first_open = device.start()
        first, second = device.emit(), device.emit()
        second_open = device.restart()
        third = device.emit()
        assert reader.take(first_open, first, second_open, third) == [
            "opened",
            "accepted",
            "opened",
            "predecessor-pending",
        ]
        assert reader.heads.pending() == [Pending("gap", "anomaly", "anomalies", first.instance_id, 2, 2)]
        assert reader.take(second) == ["accepted", "accepted"]
        assert reader.accepted == [first, second, third]

    def test_outputs_pass_to_the_next_instance_one_by_one(self, device, reader):
        device.start()
        late = device.emit("anomalies")
        device.emit("summary")
        device.restart()
        device.emit("summary"), device.emit("anomalies")
        reader.take(*[message for message in device.sent if message is not late])
        assert [link.output for link in reader.accepted] == ["summary", "summary"]
        assert reader.take(late) == ["accepted", "accepted"]

    def test_an_instance_that_emits_nothing_is_passed_through(self, device, reader):
        device.start(), device.emit()
        device.restart()
        device.restart(), device.emit()
        reader.take(*device.sent)
        assert len(reader.accepted) == 2
        assert reader.heads.pending() == []

    def test_open_records_in_the_wrong_order_wait_for_each_other(self, device, reader):
        opens = [device.start(), device.restart(), device.restart()]
        assert reader.take(*reversed(opens)) == [
            "predecessor-missing",
            "predecessor-missing",
            "opened",
            "opened",
            "opened",
        ]

    def test_a_lost_open_record_holds_everything_after_it(self, device, reader):
        device.start()
        lost = device.restart()
        device.emit()
        third = device.restart()
        result = device.emit()
        codes_seen = reader.take(*[message for message in device.sent if message is not lost])
        assert codes_seen == ["opened", "no-open-record", "predecessor-missing", "predecessor-missing"]
        assert {pending.instance_id for pending in reader.heads.pending()} == {lost.instance_id, third.instance_id}
        reader.take(lost)
        assert reader.accepted[-1] == result

    def test_a_lost_tail_is_known_from_the_next_open_record(self, device, reader):
        device.start()
        device.emit(), device.emit()
        lost = device.sent.pop()
        device.restart()
        reader.take(*device.sent)
        assert reader.heads.pending() == [Pending("gap", "anomaly", "anomalies", lost.instance_id, 2, 2)]

    def test_a_lost_tail_is_known_from_the_close_record(self, device, reader):
        device.start(), device.emit()
        lost = device.sent.pop()
        device.close()
        assert reader.take(*device.sent) == ["opened", "closed"]
        assert reader.heads.pending() == [Pending("gap", "anomaly", "anomalies", lost.instance_id, 1, 1)]

    def test_a_close_record_that_overtakes_its_open_record_waits(self, device, reader):
        opened = device.start()
        closed = device.close()
        assert reader.take(closed, opened) == ["no-open-record", "opened", "closed"]

    def test_a_result_after_the_close_record_is_an_equivocation(self, device, reader):
        device.start(), device.emit()
        device.close()
        device.emit()
        assert reader.take(*device.sent)[-1] == "result-after-close"

    def test_a_close_record_before_a_result_already_seen_is_an_equivocation(self, device, reader):
        device.start()
        closed = device.close()
        device.sent.remove(closed)
        device.emit()
        assert reader.take(*device.sent, closed)[-1] == "result-after-close"

    def test_another_close_record_is_an_equivocation(self, device, reader):
        device.start()
        closed = device.close()
        assert reader.take(*device.sent, closed, other(closed))[-2:] == ["duplicate", "equivocation"]

    def test_a_close_record_of_another_epoch_is_refused(self, device, reader):
        device.start()
        closed = msgspec.structs.replace(device.close(), epoch=7)
        assert reader.take(device.sent[0], closed) == ["opened", "wrong-epoch"]


class TestDishonestHost:
    def test_going_on_from_before_the_head_is_a_rollback(self, device, reader):
        device.start(), device.emit()
        state = device.snapshot()
        device.emit()
        device.start(state)
        device.emit()
        assert reader.take(*device.sent)[-2:] == ["rollback", "instance-not-admitted"]
        assert len(reader.accepted) == 2

    def test_an_open_record_without_a_result_we_hold_is_a_rollback(self, device, reader):
        """The result behind a gap is not accepted yet, but it proves that the instance had gone that far."""
        device.start(), device.emit()
        state = device.snapshot()
        device.emit()
        third = device.emit()
        reader.take(device.sent[0], device.sent[1], third)
        assert reader.take(device.start(state)) == ["rollback"]

    def test_an_open_record_without_what_the_close_record_names_is_a_rollback(self, device, reader):
        device.start()
        state = device.snapshot()
        hidden = device.emit()
        device.close()
        device.start(state)
        assert reader.take(*[message for message in device.sent if message is not hidden])[-1] == "rollback"

    def test_a_close_record_that_comes_after_the_rollback_reveals_it(self, device, reader):
        device.start()
        state = device.snapshot()
        hidden = device.emit()
        closed = device.close()
        device.start(state)
        reader.take(*[message for message in device.sent if message not in (hidden, closed)])
        assert reader.take(closed) == ["rollback"]
        assert reader.take(device.emit()) == ["stopped"]

    def test_a_result_withheld_until_after_the_restart_reveals_the_rollback(self, device, reader):
        device.start(), device.emit()
        state = device.snapshot()
        hidden = device.emit()
        device.start(state)
        device.emit()
        reader.take(*[message for message in device.sent if message is not hidden])
        assert reader.take(hidden) == ["abandoned-result"]
        assert reader.take(device.emit()) == ["stopped"]

    def test_on_an_output_that_the_next_instance_never_saw_too(self, device, reader):
        device.start()
        state = device.snapshot()
        hidden = device.emit("summary")
        device.start(state)
        assert reader.take(device.sent[0], device.sent[2], hidden) == ["opened", "opened", "abandoned-result"]

    def test_a_second_successor_is_a_fork(self, device, reader):
        device.start(), device.emit()
        state = device.snapshot()
        device.start(state), device.emit()
        device.start(state), device.emit()
        assert reader.take(*device.sent) == [
            "opened",
            "accepted",
            "opened",
            "accepted",
            "fork",
            "instance-not-admitted",
        ]

    def test_two_waiting_successors_of_one_predecessor_are_a_fork(self, device, reader):
        first = device.start()
        state = device.snapshot()
        second, third = device.start(state), device.start(state)
        assert reader.take(second, third, first)[-3:] == ["opened", "opened", "fork"]

    def test_beginning_anew_in_a_known_slot_is_a_reset(self, device, reader):
        device.start(), device.emit()
        device.start(), device.emit()
        assert reader.take(*device.sent) == ["opened", "accepted", "reset", "instance-not-admitted"]

    def test_beginning_anew_under_another_name_is_pointed_out(self, device, make_device, reader):
        reader.take(device.start())
        assert reader.take(make_device(slot="second").start()) == ["new-slot"]

    def test_continuing_an_instance_of_another_slot_is_refused(self, device, make_device, reader):
        reader.take(device.start())
        stranger = make_device(slot="second")
        assert reader.take(stranger.start(device.snapshot())) == ["wrong-slot"]

    def test_an_open_record_that_names_another_last_result_is_an_equivocation(self, device, reader):
        device.start(), device.emit()
        reader.take(*device.sent)
        state = device.snapshot()
        state.heads["anomalies"] = (1, OTHER)
        assert reader.take(device.start(state)) == ["equivocation"]
        assert reader.take(device.emit()) == ["instance-not-admitted"]

    def test_a_result_other_than_the_next_instance_names_is_an_equivocation(self, device, reader):
        device.start()
        first = device.emit()
        device.restart()
        assert reader.take(device.sent[0], device.sent[2], other(first)) == ["opened", "opened", "equivocation"]
        assert reader.take(first) == ["stopped"]

    def test_a_first_contact_in_mid_history_waits_for_a_person(self, device, reader):
        device.start()
        reader.take(device.restart(), device.emit())
        assert reader.kinds() == {Kind.HELD}


class TestCounter:
    def test_a_missing_epoch_is_a_proven_loss_and_the_stream_goes_on(self, counting_device, reader):
        counting_device.start()
        counting_device.start(counting_device.snapshot(), skipped_epochs=2)
        counting_device.emit()
        assert reader.take(*counting_device.sent) == ["opened", "opened", "missing-epochs", "accepted"]
        assert "2 to 3" in reader.verdicts[2].what

    def test_two_instances_in_one_epoch_are_a_rollback(self, counting_device, reader):
        counting_device.start()
        copied = msgspec.structs.replace(counting_device.restart(), epoch=1)
        assert reader.take(counting_device.sent[0], copied) == ["opened", "epoch-not-advanced"]


class TestDecisions:
    def test_accepting_a_loss_lets_held_results_through(self, device, reader):
        device.start()
        lost, second, third = device.emit(), device.emit(), device.emit()
        reader.take(device.sent[0], second, third)
        assert reader.decide(reader.heads.accept_loss(second)) == ["given-up", "accepted", "accepted"]
        assert reader.heads.pending() == []
        assert reader.take(lost) == ["late"]

    def test_accepting_a_lost_tail_passes_to_the_next_instance(self, device, reader):
        device.start()
        lost = device.emit()
        device.restart()
        first = device.emit()
        reader.take(*[message for message in device.sent if message is not lost])
        assert reader.decide(reader.heads.accept_loss(first)) == ["given-up", "accepted"]
        assert reader.take(lost) == ["late"]

    def test_accepting_a_loss_trusts_no_other_open_record(self, device, reader):
        device.start()
        lost = device.emit()
        device.restart()
        forged = msgspec.structs.replace(device.emit(), previous=OTHER)
        reader.take(*[message for message in device.sent[:-1] if message is not lost], forged)
        assert reader.decide(reader.heads.accept_loss(forged)) == ["given-up", "equivocation"]

    @pytest.mark.parametrize("incident", ["rollback", "fork", "reset"])
    def test_accepting_a_restart_lets_the_stream_go_on_from_it(self, device, reader, incident):
        device.start(), device.emit()
        state = device.snapshot()
        if incident == "rollback":
            device.emit()
        if incident == "fork":
            device.restart(), device.emit()
        opened = device.start(None if incident == "reset" else state)
        held = device.emit()
        device.restart()
        last = device.emit()
        assert incident in reader.take(*device.sent)
        assert reader.decide(reader.heads.accept_restart(opened.instance_id)) == [
            "given-up",
            "opened",
            "accepted",
            "accepted",
        ]
        assert reader.accepted[-2:] == [held, last]
        assert reader.heads.pending() == []

    def test_accepting_a_restart_after_an_equivocation(self, device, reader):
        device.start()
        first = device.emit()
        reader.take(*device.sent, other(first))
        opened = device.start()
        result = device.emit()
        assert reader.take(opened, result) == ["reset", "instance-not-admitted"]
        assert reader.decide(reader.heads.accept_restart(opened.instance_id)) == ["given-up", "accepted"]
        assert reader.take(first) == ["duplicate"]

    def test_results_of_the_abandoned_line_come_too_late(self, device, reader):
        device.start(), device.emit()
        state = device.snapshot()
        device.emit()
        late = device.emit()
        opened = device.start(state)
        reader.take(*[message for message in device.sent if message is not late])
        reader.decide(reader.heads.accept_restart(opened.instance_id))
        assert reader.take(late) == ["late"]

    def test_accepting_a_first_contact_in_mid_history(self, device, reader):
        device.start()
        opened, result = device.restart(), device.emit()
        reader.take(opened, result)
        assert reader.decide(reader.heads.accept_restart(opened.instance_id)) == ["opened", "accepted"]

    @pytest.mark.parametrize("delivered", [1, 2], ids=["next in line", "seen already"])
    def test_there_is_nothing_to_accept_where_nothing_is_lost(self, device, reader, delivered):
        device.start()
        first = device.emit()
        reader.take(*device.sent[:delivered])
        with pytest.raises(ResultError, match="nothing-lost"):
            reader.heads.accept_loss(first)

    def test_a_stopped_stream_cannot_be_skipped(self, device, reader):
        device.start()
        first = device.emit()
        device.emit()
        reader.take(*device.sent[:2], other(first))
        with pytest.raises(ResultError, match="stopped"):
            reader.heads.accept_loss(device.emit())

    def test_an_unknown_instance_cannot_be_accepted(self, device, reader):
        with pytest.raises(ResultError, match="no-such-instance"):
            reader.heads.accept_restart(OTHER)
        device.start()
        with pytest.raises(ResultError, match="no-open-record"):
            reader.heads.accept_loss(device.emit())


class TestBounds:
    def test_many_restarts_are_forgotten_but_not_mistaken_for_a_reset(self, device, reader):
        first_open = device.start()
        first = device.emit()
        reader.take(*device.sent)
        for _ in range(MAX_CHAIN + 5):
            reader.take(device.restart(), device.emit())
        assert reader.kinds() == {Kind.ACCEPTED}
        assert reader.take(first_open, first) == ["duplicate-forgotten", "duplicate-forgotten"]
        assert reader.take(device.start(dataclasses.replace(device.snapshot(), instance_id=first.instance_id))) == [
            "fork"
        ]
        assert len(reader.heads.export()) < 200_000

    def test_restarts_behind_a_gap_are_held_at_the_limit(self, device, reader):
        device.start(), device.emit()
        lost = device.sent.pop()
        for _ in range(MAX_CHAIN):
            device.restart()
        assert reader.take(*device.sent)[-1] == "too-many-instances"
        assert reader.heads.pending()[-1].first == lost.sequence

    def test_waiting_instances_are_limited(self, device, reader):
        device.start()
        for _ in range(MAX_WAITING + 2):
            device.restart(), device.restart()
        seen = reader.take(*device.sent[2::2])
        assert seen[-2:] == ["too-many-instances"] * 2
        assert reader.heads.pending()

    def test_outputs_are_limited(self, device, reader):
        device.start()
        for number in range(65):
            device.emit(f"output{number}")
        assert reader.take(*device.sent)[-2:] == ["accepted", "too-many-outputs"]


@pytest.mark.parametrize(
    "data", [b"", b"\xc0", b"not msgpack", StreamHeads().export() + b"\x00"], ids=["empty", "null", "text", "trailing"]
)
def test_stored_heads_that_are_damaged_are_refused(data):
    with pytest.raises(ResultError, match="bad-heads"):
        StreamHeads.restore(data)


def test_every_kind_of_verdict_has_a_code():
    assert set(codes().values()) == set(Kind)
