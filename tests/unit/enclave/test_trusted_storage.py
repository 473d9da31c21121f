"""Trusted storage against the real emulated counter: every point at which a process is killed, every lie of a host."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave.enclave.emulated_counter import EmulatedCounter
from edgeclave.enclave.hardware import CounterError
from edgeclave.enclave.messages import Released
from edgeclave.enclave.sealing import SealingKeys
from edgeclave.enclave.state import Snapshot, StateVault
from edgeclave.enclave.storage import TrustedStorage, counter_id
from edgeclave.errors import EnclaveError
from edgeclave.platforms.emulated_counters import EmulatedCounters

from .conftest import FakeHardware, identity_of

ROOT = bytes(32)
COUNTER = counter_id(FakeHardware(), identity_of(), "slot")
POINTS = ("before it is kept", "before the counter moves", "before it leaves", "before it is stored", "not at all")


class Killed(Exception):  # noqa: N818 - not an error: the end of a process
    pass


def vault(slot: str = "slot") -> StateVault:
    return StateVault(SealingKeys(FakeHardware(), identity_of(), "state", accept_from=3), slot)


@dataclass
class Host:
    """What an honest host stores; `kill` says where its enclave is killed next."""

    device: EmulatedCounters
    state: bytes | None = None
    pending: bytes | None = None
    answers: dict[str, str] = field(default_factory=dict)
    openings: int = 0
    kill: str = "not at all"

    def exchange(self, command: bytes, keep: bytes | None) -> bytes:
        if keep is not None:
            self._die("before it is kept")
            self.pending = keep
            self._die("before the counter moves")
        answer = self.device.run(command)
        if keep is not None:
            self._die("before it leaves")
        return answer

    def start(self) -> TrustedStorage:
        storage = TrustedStorage(vault(), EmulatedCounter(ROOT, COUNTER, self.exchange))
        recovered = storage.open(self.state, self.pending)
        if recovered is not None:
            self.state = self.pending
            self._take(recovered)
        opening = Released(evidence=b"evidence", open_record=b"open")
        self._store(storage.commit(storage.snapshot, opening), opening)
        return storage

    def call(self, storage: TrustedStorage, call_id: str) -> str:
        """Adds one to a number, once for each call id, and returns it."""
        if call_id not in self.answers:
            number = storage.snapshot.counters.get("n", 0) + 1
            released = Released(call_id=call_id, reply=str(number))
            changed = msgspec.structs.replace(storage.snapshot, counters={"n": number})
            self._store(storage.commit(changed, released), released)
        return self.answers[call_id]

    def _store(self, state: bytes, released: Released) -> None:
        self._die("before it is stored")
        self.state, self.pending = state, None
        self._take(released)

    def _take(self, released: Released) -> None:
        if released.open_record is not None:
            self.openings += 1
        if released.call_id is not None:
            reply = released.reply or ""
            assert self.answers.setdefault(released.call_id, reply) == reply, "carried out twice"

    def _die(self, point: str) -> None:
        if self.kill == point:
            self.kill = "not at all"
            raise Killed


def started(host: Host, kills: list[str]) -> TrustedStorage:
    """Starts until it works, killed at each of these points in turn."""
    while True:
        host.kill = kills.pop(0) if kills else "not at all"
        try:
            return host.start()
        except Killed:
            continue


@pytest.fixture
def device(tmp_path: Path) -> EmulatedCounters:
    return EmulatedCounters(tmp_path / "counters", lambda: ROOT)


@pytest.fixture
def host(device: EmulatedCounters) -> Host:
    return Host(device)


def refusal(storage: Callable[[], object]) -> str:
    with pytest.raises(EnclaveError) as refused:
        storage()
    assert refused.value.advice
    return refused.value.code


# Kills


@pytest.mark.parametrize("in_call", POINTS)
@pytest.mark.parametrize("in_starts", list(itertools.product(POINTS, repeat=2)), ids=", then ".join)
def test_a_kill_anywhere_loses_nothing_and_does_nothing_twice(
    host: Host, in_call: str, in_starts: tuple[str, str]
) -> None:
    assert host.call(started(host, [*in_starts]), "one") == "1"
    storage = started(host, [])
    host.kill = in_call
    try:
        host.call(storage, "two")
    except Killed:
        storage = started(host, [*in_starts])
    assert host.call(storage, "two") == "2"
    assert host.call(storage, "three") == "3"
    assert host.answers == {"one": "1", "two": "2", "three": "3"}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(POINTS), max_size=24))
def test_no_sequence_of_kills_bricks_a_slot(kills: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        host = Host(EmulatedCounters(Path(folder) / "counters", lambda: ROOT))
        storage = started(host, kills)
        for number in range(1, 6):
            while True:
                host.kill = kills.pop() if kills else "not at all"
                try:
                    assert host.call(storage, f"call {number}") == str(number)
                    break
                except Killed:
                    storage = started(host, kills)


def test_an_opening_that_was_committed_is_handed_out_again(host: Host) -> None:
    started(host, ["before it leaves"])
    assert host.openings == 2
    started(host, ["before the counter moves"])
    assert host.openings == 3, "one that was not committed never was"


# Lies


def test_an_older_state_is_refused(host: Host) -> None:
    storage = host.start()
    host.call(storage, "one")
    older = host.state
    host.call(storage, "two")
    host.state = older
    assert refusal(host.start) == "state-rolled-back"


def test_no_state_is_an_older_state(host: Host) -> None:
    host.start()
    host.state = None
    assert refusal(host.start) == "state-rolled-back"


def test_a_state_that_was_prepared_and_not_committed_is_refused_for_ever(host: Host) -> None:
    storage = host.start()
    spare = Host(host.device, host.state, kill="before the counter moves")
    with pytest.raises(Killed):
        spare.start()
    assert host.call(storage, "a guess at the PIN") == "1"
    host.state = spare.pending  # of the same number as the state that counts the guess
    assert refusal(host.start) == "state-rolled-back"


def test_a_second_instance_supersedes_the_first(host: Host) -> None:
    first = host.start()
    second = host.start()
    with pytest.raises(CounterError) as refused:
        host.call(first, "one")
    assert refused.value.code == "instance-superseded"
    assert host.call(second, "two") == "1"


def test_a_counter_that_was_put_back_is_told_from_a_state_that_was(host: Host, tmp_path: Path) -> None:
    host.call(host.start(), "one")
    for file in (tmp_path / "counters").iterdir():
        file.unlink()
    assert refusal(host.start) == "counter-lost"


def test_a_bound_state_is_refused_where_there_is_no_counter(host: Host) -> None:
    host.start()
    assert refusal(lambda: TrustedStorage(vault(), None).open(host.state, None)) == "counter-missing"


def test_state_from_before_the_counter_is_taken_over_once(host: Host) -> None:
    plain = TrustedStorage(vault(), None)
    host.state = older = plain.commit(Snapshot(counters={"n": 4}), Released())
    assert host.call(host.start(), "one") == "5"
    host.state = older
    assert refusal(host.start) == "state-rolled-back"


def test_versions_share_a_counter_and_nobody_else_does() -> None:
    hardware = FakeHardware()
    same = counter_id(hardware, identity_of(security_version=9, unique_id=b"v" * 32), "slot")
    assert same == COUNTER
    others = {
        counter_id(hardware, identity_of(product_id=2), "slot"),
        counter_id(hardware, identity_of(signer_id=b"t" * 32), "slot"),
        counter_id(hardware, identity_of(debug=True), "slot"),
        counter_id(hardware, identity_of(), "another slot"),
        counter_id(FakeHardware(platform_class="sgx"), identity_of(), "slot"),
    }
    assert len(others | {COUNTER}) == 6


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(POINTS), st.integers(0, 40), st.integers(0, 40)), max_size=25
)


@settings(deadline=None, max_examples=150)
@given(STEPS)
def test_what_left_the_enclave_is_never_taken_back(steps: list[tuple[int, str, int, int]]) -> None:
    """A host that keeps every blob, offers any two of them, kills where it likes and runs instances side by side."""
    with tempfile.TemporaryDirectory() as folder:
        host = Host(EmulatedCounters(Path(folder) / "counters", lambda: ROOT))
        blobs: list[bytes | None] = [None]
        running: list[TrustedStorage] = [host.start()]
        highest = 0
        for number, (action, kill, first, second) in enumerate(steps):
            blobs += [blob for blob in (host.state, host.pending) if blob not in blobs]
            host.kill = kill
            try:
                if action == 0:
                    host.state, host.pending = blobs[first % len(blobs)], blobs[second % len(blobs)]
                    running.append(host.start())
                    assert running[-1].snapshot.counters.get("n", 0) >= highest
                else:
                    instance = running[first % len(running)]
                    told = int(host.call(instance, f"call {number}"))
                    assert told > highest
            except (Killed, EnclaveError):
                pass
            highest = max([highest, *map(int, host.answers.values())])


# The device


def test_values_outlive_the_process_and_nothing_else_is_in_the_folder(host: Host, tmp_path: Path) -> None:
    storage = host.start()
    for number in range(3):
        host.call(storage, str(number))
    again = EmulatedCounter(
        ROOT, COUNTER, lambda command, _: EmulatedCounters(tmp_path / "counters", lambda: ROOT).run(command)
    )
    assert again.read()[0] == 4
    (file,) = (tmp_path / "counters").iterdir()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "content", [b"", b"7", b"-1 " + b"0" * 64 + b"\n", b"9" * 17 + b" " + b"0" * 64 + b"\n", b"\xff"]
)
def test_a_damaged_file_is_never_a_lower_value(host: Host, tmp_path: Path, content: bytes) -> None:
    host.start()
    (file,) = (tmp_path / "counters").iterdir()
    file.write_bytes(content)
    assert refusal(host.start) == "counter-unavailable"


def test_a_folder_that_cannot_be_used_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "counters").write_text("in the way")
    assert refusal(Host(EmulatedCounters(tmp_path / "counters", lambda: ROOT)).start) == "counter-unavailable"


def flipped(message: bytes, position: int) -> bytes:
    return message[:position] + bytes([message[position] ^ 1]) + message[position + 1 :]


def test_an_altered_answer_is_not_believed(device: EmulatedCounters) -> None:
    positions = iter(range(1000))

    def exchange(command: bytes, _keep: bytes | None) -> bytes:
        answer = device.run(command)
        position = next(positions)
        if position >= len(answer):
            raise Killed
        return flipped(answer, position)

    counter = EmulatedCounter(ROOT, COUNTER, exchange)
    with contextlib.suppress(Killed):
        while True:
            assert refusal(counter.read) == "counter-answer-refused"
    assert next(positions) > 100


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda device, command, earlier: earlier, id="the answer to an earlier command"),
        pytest.param(lambda device, command, earlier: command, id="the command itself"),
        pytest.param(lambda device, command, earlier: b"", id="nothing"),
        pytest.param(lambda device, command, earlier: os.urandom(200), id="noise"),
    ],
)
def test_another_answer_is_not_believed(device: EmulatedCounters, answer: Callable[..., bytes]) -> None:
    seen: list[bytes] = []

    def honest(command: bytes, _keep: bytes | None) -> bytes:
        seen.append(device.run(command))
        return seen[-1]

    EmulatedCounter(ROOT, COUNTER, honest).read()
    lying = EmulatedCounter(ROOT, COUNTER, lambda command, _: answer(device, command, seen[0]))
    assert refusal(lying.read) == "counter-answer-refused"


def test_the_device_obeys_nobody_else(device: EmulatedCounters) -> None:
    commands: list[bytes] = []

    def record(command: bytes, _keep: bytes | None) -> bytes:
        commands.append(command)
        return device.run(command)

    counter = EmulatedCounter(ROOT, COUNTER, record)
    counter.increment(0, b"state")
    (command,) = commands
    device.run(command)
    assert counter.read()[0] == 1, "the same command again moves nothing"
    for altered in [flipped(command, position) for position in range(len(command))]:
        assert refusal(lambda altered=altered: device.run(altered)) == "counter-command-refused"  # type: ignore[misc]
    stranger = EmulatedCounter(bytes([1]) * 32, COUNTER, record)
    assert refusal(stranger.read) == "counter-command-refused"


@given(st.binary(max_size=300))
def test_arbitrary_commands_are_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.raises(EnclaveError):
        EmulatedCounters(Path(folder), lambda: ROOT).run(data)
