from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeclave import cose
from edgeclave.cloud.events import Event
from edgeclave.cloud.findings import Finding
from edgeclave.cloud.heads import HeadStore
from edgeclave.cloud.reader import Reader
from edgeclave.cloud.summary import Counts, Summary
from edgeclave.evidence import collection
from edgeclave.evidence.eat import EAT
from edgeclave.results.records import CLOSE, OPEN
from edgeclave.results.sealed import RESULT

from .conftest import DEVICE, OUTPUT, SLOT, Instance, World


def read(reader: Reader, events: Iterable[Event]) -> list[Finding]:
    """Each event on its own, as it would come from a quiet hub."""
    return [finding for event in events for finding in reader.process(event)]


def kinds(findings: Sequence[Finding]) -> list[str]:
    return [finding.kind for finding in findings]


def payloads(findings: Sequence[Finding]) -> list[Any]:
    return [finding.payload for finding in findings if finding.kind == "result"]


def mangled(event: Event, position: int) -> Event:
    body = bytearray(event.body)
    body[position] ^= 1
    return dataclasses.replace(event, body=bytes(body))


def summary_of(reader: Reader, findings: Iterable[Finding]) -> Summary:
    counts = Counts()
    for finding in findings:
        counts.add(finding)
    return counts.summary(reader.pending(), reader.held(), reader.ignored)


def test_results_are_opened_in_order(world: World, reader: Reader) -> None:
    instance = Instance(world)
    found = read(reader, [*instance.begin(), *(instance.result({"n": n}) for n in range(3)), instance.close()])
    assert kinds(found) == ["evidence", "open", "result", "result", "result", "close"]
    assert payloads(found) == [{"n": 0}, {"n": 1}, {"n": 2}]
    last = found[-2]
    assert (last.device, last.slot, last.output, last.sequence) == (DEVICE, SLOT, OUTPUT, 3)
    assert (last.instance, last.epoch, last.assurance, last.calls) == (instance.instance_id.hex(), 1, "none", 3)
    assert found[0].platform_class == "emulated"
    summary = summary_of(reader, found)
    assert (summary.verified, summary.opened, summary.evidence_type) == (3, 3, ["emulated"])
    assert not summary.troubled


def test_outputs_have_heads_of_their_own(world: World, reader: Reader) -> None:
    instance = Instance(world)
    events = [*instance.begin(), instance.result(1), instance.result(2, "summary"), instance.result(3)]
    assert payloads(read(reader, events)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("payload", "kind", "text"),
    [
        pytest.param(b"", "heartbeat", None, id="nothing: a heartbeat"),
        pytest.param(b"not JSON", "result", "not JSON", id="text that is no JSON"),
        pytest.param(b"\xff\x00", "result", "\\xff\x00", id="bytes that are no text"),
        pytest.param(b"[" * 100_000, "result", "[" * 100_000, id="JSON nested without end"),
    ],
)
def test_a_payload_that_is_no_json_is_shown_as_it_is(
    world: World, reader: Reader, payload: bytes, kind: str, text: str | None
) -> None:
    instance = Instance(world)
    (found,) = read(reader, [*instance.begin(), instance.result(payload)])[2:]
    assert (found.kind, found.text) == (kind, text)


def test_a_replayed_result_is_a_duplicate(world: World, reader: Reader) -> None:
    instance = Instance(world)
    result = instance.result("once")
    assert kinds(read(reader, [*instance.begin(), result, result, instance.evidence(), instance.open()])) == [
        "evidence",
        "open",
        "result",
        "duplicate",
        "duplicate",
        "duplicate",
    ]


def test_reordered_results_are_held_and_come_out_in_order(world: World, reader: Reader) -> None:
    instance = Instance(world)
    begin = instance.begin()
    results = [instance.result(n) for n in range(6)]
    order = [results[n] for n in (2, 1, 4, 4, 0, 5, 3)]
    found = read(reader, [*begin, *order])
    assert payloads(found) == list(range(6))
    assert kinds(found[2:6]) == ["gap", "held", "held", "duplicate"]
    assert reader.pending() == []
    assert reader.held() == {}


def test_a_missing_result_is_a_gap_until_it_comes(world: World, reader: Reader) -> None:
    instance = Instance(world)
    begin = instance.begin()
    first, second, third = (instance.result(n) for n in range(3))
    found = read(reader, [*begin, first, third])
    assert [finding.code for finding in found if finding.kind == "gap"] == ["gap"]
    summary = summary_of(reader, found)
    assert (summary.gaps, summary.held, summary.troubled) == (1, 1, True)
    late = read(reader, [second])
    assert payloads(late) == [1, 2]
    assert not summary_of(reader, late).troubled


@pytest.mark.parametrize("seed", range(8))
def test_messages_of_three_instances_in_any_order_come_out_once_and_in_order(
    world: World, reader: Reader, seed: int
) -> None:
    first = Instance(world)
    events = [*first.begin(), *(first.result(("first", n)) for n in range(4)), first.close()]
    second = Instance(world, predecessor=first)
    events += [*second.begin(), *(second.result(("second", n)) for n in range(3))]
    third = Instance(world, predecessor=second, security_version=2)
    events += [*third.begin(), *(third.result(("third", n)) for n in range(2))]
    expected = [["first", n] for n in range(4)] + [["second", n] for n in range(3)] + [["third", n] for n in range(2)]
    random.Random(seed).shuffle(events)
    # The open record of the first instance comes before those that succeed it, as from one outbox.
    begin = [event for event in events if event.body in (first.evidence_body, first.open_body)]
    found = read(reader, [*begin, *(event for event in events if event not in begin)])
    assert payloads(found) == expected
    assert reader.held() == {}
    assert not summary_of(reader, found).troubled


def test_results_wait_for_their_evidence(world: World, reader: Reader) -> None:
    instance = Instance(world)
    evidence, opened = instance.begin()
    waiting = read(reader, [opened, instance.result(1), instance.result(2)])
    assert [(finding.kind, finding.code) for finding in waiting] == [("held", "no-evidence")] * 3
    assert summary_of(reader, waiting).held == 3
    assert kinds(read(reader, [evidence])) == ["evidence", "open", "result", "result"]


def test_results_wait_for_their_open_record(world: World, reader: Reader) -> None:
    instance = Instance(world)
    evidence, opened = instance.begin()
    waiting = read(reader, [evidence, instance.result(1), instance.result(2)])
    assert [(finding.kind, finding.code) for finding in waiting[1:]] == [("held", "no-open-record")] * 2
    assert payloads(read(reader, [opened])) == [1, 2]


def test_what_is_held_survives_a_restart_of_the_reader(world: World, tmp_path: Path) -> None:
    instance = Instance(world)
    evidence, opened = instance.begin()
    store = HeadStore(tmp_path / "reader")
    read(Reader(world.policy(), world.recipient_key, store), [opened, instance.result(1)])
    store.close()
    again = HeadStore(tmp_path / "reader")
    assert payloads(read(Reader(world.policy(), world.recipient_key, again), [evidence])) == [1]
    again.close()


def _flip_signature(world: World, instance: Instance) -> Event:
    return mangled(instance.result("x"), -1)


def _flip_ciphertext(world: World, instance: Instance) -> Event:
    event = instance.result("x" * 500)
    return mangled(event, len(event.body) // 2)


def _resign_by_another(world: World, instance: Instance) -> Event:
    """Another instance's ciphertext and header, under this instance's signature."""
    other = Instance(world)
    signed = cose.parse(other.seal("stolen"))
    protected = {name: value for name, value in signed.protected.items() if name not in (cose.ALG, cose.TYP)}
    protected[cose.KID] = instance.instance_id
    protected[-65537] = {**protected[-65537], "evidence": cose.sha256(instance.evidence_body)}
    protected[-65537]["prev"] = cose.sha256(instance.open_body)
    return world.send(RESULT.media_type, cose.sign(RESULT, signed.payload, instance.key, protected=protected))


def _by_an_instance_without_evidence_naming_ours(world: World, instance: Instance) -> Event:
    return Instance(world).result("x", evidence_digest=cose.sha256(instance.evidence_body))


def _of_another_product(world: World, instance: Instance) -> Event:
    return instance.result("x", product_id=7)


def _of_another_code(world: World, instance: Instance) -> Event:
    return instance.result("x", unique_id=bytes(32))


def _of_a_lower_security_version(world: World, instance: Instance) -> Event:
    return instance.result("x", security_version=0)


def _of_another_epoch(world: World, instance: Instance) -> Event:
    return instance.result("x", epoch=9)


def _as_an_open_record(world: World, instance: Instance) -> Event:
    return world.send(OPEN.media_type, instance.seal("x"))


def _open_record_as_a_result(world: World, instance: Instance) -> Event:
    return world.send(RESULT.media_type, instance.open_body)


def _evidence_as_a_result(world: World, instance: Instance) -> Event:
    return world.send(RESULT.media_type, instance.evidence_body)


def _eat_as_evidence(world: World, instance: Instance) -> Event:
    return world.send(collection.MEDIA_TYPE, collection.decode_collection(instance.evidence_body).eat)


def _of_an_unknown_kind_of_ours(world: World, instance: Instance) -> Event:
    return world.send("application/edgeclave-result+jose", instance.seal("x"))


def _huge(world: World, instance: Instance) -> Event:
    return world.send(RESULT.media_type, bytes(3 << 20))


def _empty(world: World, instance: Instance) -> Event:
    return world.send(RESULT.media_type, b"")


Make = Callable[[World, Instance], Event]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (_flip_signature, "bad-signature"),
        (_flip_ciphertext, "bad-signature"),
        (_resign_by_another, "cannot-open"),
        (_by_an_instance_without_evidence_naming_ours, "bad-signature"),
        (_of_another_product, "wrong-identity"),
        (_of_another_code, "wrong-identity"),
        (_of_a_lower_security_version, "wrong-identity"),
        (_of_another_epoch, "wrong-epoch"),
        (_as_an_open_record, "wrong-message-kind"),
        (_open_record_as_a_result, "malformed-result"),
        (_evidence_as_a_result, "malformed-message"),
        (_eat_as_evidence, "malformed-evidence"),
        (_of_an_unknown_kind_of_ours, "unknown-content-type"),
        (_huge, "malformed-message"),
        (_empty, "malformed-message"),
    ],
    ids=lambda value: value.__name__.strip("_").replace("_", " ") if callable(value) else "",
)
def test_a_bad_message_is_refused_with_the_reason(world: World, reader: Reader, make: Make, code: str) -> None:
    instance = Instance(world)
    read(reader, instance.begin())
    found = read(reader, [make(world, instance)])
    assert [(finding.kind, finding.code) for finding in found] == [("refused", code)]
    assert summary_of(reader, found).troubled


def test_a_refused_result_does_not_stand_in_the_way_of_the_true_one(world: World, reader: Reader) -> None:
    instance = Instance(world)
    begin = instance.begin()
    result = instance.result("true")
    found = read(reader, [*begin, mangled(result, -1), result])
    assert kinds(found) == ["evidence", "open", "refused", "result"]


def _wrong_root(world: World) -> Instance:
    return Instance(dataclasses.replace(world, attestation_key=cose.generate_key()))


def _wrong_runtime(world: World) -> Instance:
    return Instance(dataclasses.replace(world, runtime=bytes(32)))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(_wrong_root, "untrusted-anchor", id="foreign root"),
        pytest.param(_wrong_runtime, "wrong-runtime", id="other enclave code"),
        pytest.param(lambda world: Instance(world, product_id=2), "unknown-trusted-app", id="another product"),
        pytest.param(lambda world: Instance(world, security_version=0), "security-version-too-low", id="downgraded"),
        pytest.param(lambda world: Instance(world, debug=True), "debug-trusted-app", id="debug"),
    ],
)
def test_bad_evidence_is_refused_and_its_results_stay_held(
    world: World, reader: Reader, make: Callable[[World], Instance], code: str
) -> None:
    instance = make(world)
    found = read(reader, [*instance.begin(), instance.result(1)])
    assert [(finding.kind, finding.code) for finding in found] == [
        ("refused", code),
        ("held", "no-evidence"),
        ("held", "no-evidence"),
    ]


def test_evidence_made_for_a_nonce_of_somebody_else_is_not_fresh(world: World, store: HeadStore) -> None:
    reader = Reader(world.policy(freshness="nonce"), world.recipient_key, store)
    (found,) = read(reader, [Instance(world, nonce=b"not our nonce").evidence()])
    assert (found.kind, found.code) == ("refused", "freshness-unknown")


def test_evidence_relayed_by_another_device_is_refused(world: World, reader: Reader) -> None:
    instance = Instance(world)
    (found,) = read(reader, [instance.evidence(device="edge02")])
    assert (found.kind, found.code, found.device) == ("refused", "wrong-device", "edge02")


def test_results_relayed_by_another_device_are_not_believed(world: World, reader: Reader) -> None:
    instance = Instance(world)
    read(reader, instance.begin())
    (found,) = read(reader, [dataclasses.replace(instance.result(1), device="edge02")])
    assert (found.kind, found.code, found.device) == ("held", "no-evidence", "edge02")


def test_evidence_that_the_policy_does_not_accept_any_more_opens_nothing(world: World, tmp_path: Path) -> None:
    instance = Instance(world)
    store = HeadStore(tmp_path / "reader")
    read(Reader(world.policy(), world.recipient_key, store), instance.begin())
    stricter = Reader(world.policy(trusted_apps=()), world.recipient_key, store)
    (found,) = read(stricter, [instance.result(1)])
    assert (found.kind, found.code) == ("refused", "unknown-trusted-app")
    store.close()


def test_another_recipient_key_opens_nothing_and_says_so(world: World, store: HeadStore) -> None:
    reader = Reader(world.policy(), cose.generate_key(), store)
    instance = Instance(world)
    found = read(reader, [*instance.begin(), instance.result(1), instance.result(2)])[2:]
    assert [(finding.kind, finding.code) for finding in found] == [("refused", "not-a-recipient")] * 2
    summary = summary_of(reader, found)
    assert (summary.verified, summary.opened, summary.refused) == (2, 0, 2)


def test_results_for_an_outdated_recipient_set_are_refused(world: World, store: HeadStore) -> None:
    reader = Reader(world.policy(minimum_recipients={OUTPUT: 2}), world.recipient_key, store)
    current = Instance(world, sets={OUTPUT: world.recipients(version=2)})
    old = world.recipients(version=1)
    read(reader, current.begin())
    current.sets[OUTPUT] = old
    (found,) = read(reader, [current.result(1)])
    assert (found.kind, found.code) == ("refused", "recipients-too-old")


def test_a_restart_from_older_state_is_a_rollback(world: World, reader: Reader) -> None:
    first = Instance(world)
    events = [*first.begin(), first.result(1)]
    older = dict(first.heads)
    events.append(first.result(2))
    second = Instance(world, predecessor=first, takes_over=older)
    found = read(reader, [*events, *second.begin(), second.result(3)])
    assert (found[-2].kind, found[-2].code) == ("rollback", "rollback")
    assert (found[-1].kind, found[-1].code) == ("held", "instance-not-admitted")


def test_a_second_successor_is_a_fork(world: World, reader: Reader) -> None:
    first = Instance(world)
    second, third = Instance(world, predecessor=first), Instance(world, predecessor=first)
    found = read(reader, [*first.begin(), *second.begin(), *third.begin()])
    assert found[-1].kind == "fork"
    assert summary_of(reader, found).forks == 1


def test_a_second_beginning_is_a_reset(world: World, reader: Reader) -> None:
    found = read(reader, [*Instance(world).begin(), *Instance(world).begin()])
    assert found[-1].kind == "reset"
    assert found[-1].advice


def test_two_results_for_one_place_are_an_equivocation_and_stop_the_stream(world: World, reader: Reader) -> None:
    instance = Instance(world)
    begin = instance.begin()
    one = instance.result("one")
    kept = dict(instance.heads)
    instance.heads.clear()
    other = instance.result("other")
    instance.heads.update(kept)
    found = read(reader, [*begin, one, other, instance.result("next")])
    assert kinds(found[2:]) == ["result", "equivocation", "held"]


def test_the_results_of_another_product_are_another_stream(world: World, store: HeadStore) -> None:
    rules = (
        dataclasses.replace(world.policy().trusted_apps[0]),
        dataclasses.replace(world.policy().trusted_apps[0], product_id=2),
    )
    reader = Reader(world.policy(trusted_apps=rules), world.recipient_key, store)
    one, two = Instance(world), Instance(world, product_id=2)
    events = [*one.begin(), *two.begin(), one.result(1), two.result(10), one.result(2), two.result(20)]
    assert payloads(read(reader, events)) == [1, 10, 2, 20]


def test_telemetry_of_other_modules_is_passed_over(world: World, reader: Reader) -> None:
    found = read(reader, [world.send("application/json", b"{}"), world.send("", b"\xff")])
    assert found == []
    summary = summary_of(reader, found)
    assert (summary.ignored, summary.troubled) == (2, False)


def test_one_device_cannot_fill_the_store(world: World, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeclave.cloud.heads.MAX_HELD_PER_DEVICE", 2)
    instance = Instance(world)
    found = read(reader, [instance.result(n) for n in range(3)])
    assert [(finding.kind, finding.code) for finding in found] == [
        ("held", "no-evidence"),
        ("held", "no-evidence"),
        ("refused", "too-many-held"),
    ]


def test_daily_evidence_of_the_same_instance_is_taken_too(world: World, reader: Reader) -> None:
    instance = Instance(world)
    read(reader, instance.begin())
    again = world.send(collection.MEDIA_TYPE, instance.make_evidence(None, host_time=1))
    assert kinds(read(reader, [again, instance.result(1)])) == ["evidence", "result"]


ANY_KIND = st.sampled_from(
    [RESULT.media_type, OPEN.media_type, CLOSE.media_type, collection.MEDIA_TYPE, EAT.media_type]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(st.binary(max_size=400), ANY_KIND)
def test_garbage_of_any_kind_is_never_believed(world: World, reader: Reader, body: bytes, kind: str) -> None:
    found = read(reader, [world.send(kind, body)])
    assert set(kinds(found)) <= {"refused"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.data())
def test_one_flipped_bit_anywhere_is_never_believed(world: World, reader: Reader, data: st.DataObject) -> None:
    instance = Instance(world)
    event = data.draw(st.sampled_from([*instance.begin(), instance.result("payload"), instance.close()]))
    body = bytearray(event.body)
    body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    found = read(reader, [dataclasses.replace(event, body=bytes(body))])
    assert set(kinds(found)) <= {"refused", "held"}
