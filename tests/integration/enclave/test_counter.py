"""Rollback-protected storage with real enclave processes, killed with SIGKILL between every two steps of a commit."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeclave.cose import sha256
from edgeclave.errors import EdgeclaveError, EnclaveError
from edgeclave.evidence.collection import decode_collection
from edgeclave.evidence.eat import Claims, read_eat
from edgeclave.platforms.emulated_counters import EmulatedCounters
from edgeclave.platforms.emulator import Emulator
from edgeclave.platforms.enclave_process import EnclaveProcess
from edgeclave.results.records import verify_open
from tests.fixtures.builds import BuiltPackage
from tests.fixtures.wat.packages import HandmadePackage, minimal_package

from .conftest import Slot, Start, call, reply

POINTS = ("before it is kept", "before the counter moves", "before it leaves")


@pytest.fixture
def emulator(tmp_path: Path) -> Emulator:
    return Emulator(tmp_path / "emulator", tmp_path / "cache", counter=True)


@pytest.fixture
def shared_emulator(shared_device: Path) -> Emulator:
    return Emulator(shared_device / "emulator", shared_device / "cache", counter=True)


@pytest.fixture
async def probed(shared_emulator: Emulator, probe: BuiltPackage) -> AsyncIterator[EnclaveProcess]:
    enclave = await shared_emulator.start(probe.path, Slot("counted").request(None))
    yield enclave
    await enclave.kill()


@dataclass
class Killing(Slot):
    """Kills its enclave once, where it is told to, and stores nothing more."""

    process_id: int = 0
    point: str = ""

    def keep(self, state: bytes) -> None:
        self.die("before it is kept")
        super().keep(state)
        self.die("before the counter moves")

    def die(self, point: str) -> None:
        if self.point == point:
            self.point = ""
            os.kill(self.process_id or children()[-1], signal.SIGKILL)
            raise EnclaveError("enclave-ended", "the host goes no further either")


def children() -> list[int]:
    return [int(number) for number in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


@pytest.fixture
def slot(monkeypatch: pytest.MonkeyPatch) -> Killing:
    slot = Killing()
    run = EmulatedCounters.run

    def run_and_die(counters: EmulatedCounters, command: bytes) -> bytes:
        increments = b"increment" in command
        answer = run(counters, command)
        if increments:
            slot.die("before it leaves")
        return answer

    monkeypatch.setattr(EmulatedCounters, "run", run_and_die)
    return slot


def claims(enclave: EnclaveProcess) -> Claims:
    return read_eat(decode_collection(enclave.started.evidence).eat)


async def refusal(emulator: Emulator, package: HandmadePackage, slot: Slot) -> str:
    with pytest.raises(EdgeclaveError) as error:
        await emulator.start(package.path, slot.request(None), slot)
    assert error.value.advice
    return error.value.code


async def test_evidence_names_the_level_and_an_emulated_counter(start: Start, minimal: HandmadePackage) -> None:
    said = claims(await start(minimal))
    assert (said.storage_level, said.epoch.source, said.epoch.number) == ("rollback-protected", "emulated", 1)


async def test_a_manifest_that_requires_rollback_protection_runs(start: Start, tmp_path: Path) -> None:
    enclave = await start(minimal_package(tmp_path / "package", storage_protection="rollback-protected"))
    assert reply(await call(enclave, "echo", 1)) == 1


async def test_a_trusted_application_can_ask_for_the_level_and_count(probed: EnclaveProcess) -> None:
    assert reply(await call(probed, "protection")) == {"protection": "rollback-protected"}
    assert reply(await call(probed, "emulated")) == {"emulated": True}
    values = [reply(await call(probed, "increment", {"counter": "n"}))["value"] for _ in range(3)]
    assert values == [1, 2, 3]


async def test_an_older_state_is_refused(start: Start, emulator: Emulator, minimal: HandmadePackage) -> None:
    slot = Slot()
    enclave = await start(minimal, slot)
    older = slot.state
    slot.record(await call(enclave, "store", "the newest"))
    await enclave.kill()
    for offered in (older, None):
        assert await refusal(emulator, minimal, Slot(state=offered)) == "state-rolled-back"
    await start(minimal, slot)


async def test_state_is_not_taken_to_a_platform_without_counter(
    start: Start, emulator: Emulator, minimal: HandmadePackage, tmp_path: Path
) -> None:
    slot = Slot()
    await start(minimal, slot)
    without = Emulator(emulator.directory, tmp_path / "cache")
    assert await refusal(without, minimal, slot) == "counter-missing"


async def test_the_second_of_two_instances_ends_the_first(start: Start, minimal: HandmadePackage) -> None:
    slot = Slot()
    first = await start(minimal, slot)
    await start(minimal, slot)
    with pytest.raises(EdgeclaveError, match="instance-superseded"):
        await call(first, "store", "too late")
    assert (await first.ended).exit_code == 1


async def test_only_calls_that_change_state_move_the_counter(start: Start, minimal: HandmadePackage) -> None:
    slot = Slot()
    enclave = await start(minimal, slot)
    for method in ("echo", "publish", "fail", "trap"):
        await call(enclave, method, 1)
        assert slot.pending is None
    await call(enclave, "store", 1)
    assert slot.pending is not None


@pytest.mark.parametrize("point", POINTS)
async def test_an_enclave_killed_in_a_commit_goes_on_as_if_it_had_not_been(
    start: Start, minimal: HandmadePackage, slot: Killing, point: str
) -> None:
    first = await start(minimal, slot)
    slot.record(await call(first, "publish", 1))
    slot.process_id, slot.point = first.process_id, point
    with pytest.raises(EdgeclaveError, match="enclave-ended"):
        await first.beacon(minimal.signer.beacon(7))
    assert (await first.ended).exit_code == -signal.SIGKILL
    committed = point == "before it leaves"

    second = await start(minimal, slot)
    (recovered,) = slot.recovered or [None]
    assert (recovered is not None) == committed
    opened = verify_open(second.started.open_record, claims(second).signing_key)
    assert (opened.record.epoch, opened.record.predecessor) == (2, first.started.instance_id)
    assert opened.record.heads == {"out": (2 if committed else 1, sha256(slot.shown["out"]))}
    assert (claims(second).nonce == (7).to_bytes(16, "big")) == committed


@pytest.mark.parametrize("point", POINTS)
async def test_a_call_killed_in_its_commit_is_answered_once(
    start: Start, minimal: HandmadePackage, slot: Killing, point: str
) -> None:
    first = await start(minimal, slot)
    slot.process_id, slot.point = first.process_id, point
    with pytest.raises(EdgeclaveError, match="enclave-ended"):
        await call(first, "store", "value")
    await start(minimal, slot)
    assert [(it.call_id, it.reply) for it in slot.recovered] == (
        [("call", '"value"')] if point == "before it leaves" else []
    )


@pytest.mark.parametrize("point", POINTS)
async def test_a_start_killed_in_its_commit_leaves_an_unbroken_chain(
    start: Start, emulator: Emulator, minimal: HandmadePackage, slot: Killing, point: str
) -> None:
    slot.process_id, slot.point = 0, point
    with pytest.raises(EdgeclaveError, match="enclave-ended"):
        await emulator.start(minimal.path, slot.request(None), slot)
    second = await start(minimal, slot)
    opened = verify_open(second.started.open_record, claims(second).signing_key)
    if point != "before it leaves":
        assert (opened.record.epoch, opened.record.predecessor) == (1, None)
        return
    (lost,) = slot.recovered
    assert lost.evidence is not None
    assert lost.open_record is not None
    of_first = read_eat(decode_collection(lost.evidence).eat)
    genesis = verify_open(lost.open_record, of_first.signing_key)
    assert (genesis.record.epoch, genesis.record.predecessor) == (1, None)
    assert (opened.record.epoch, opened.record.predecessor) == (2, genesis.instance_id)


async def test_a_counter_that_fails_ends_the_enclave_and_commits_nothing(
    start: Start, minimal: HandmadePackage, emulator: Emulator, tmp_path: Path
) -> None:
    slot = Slot()
    enclave = await start(minimal, slot)
    (file,) = (tmp_path / "emulator" / "counters").iterdir()
    content = file.read_text()
    file.write_text("damaged")
    with pytest.raises(EdgeclaveError, match="counter-unavailable"):
        await call(enclave, "store", 1)
    assert enclave.ended.done()
    file.write_text(content)
    await start(minimal, slot)
    assert slot.recovered == []


async def test_a_host_that_answers_for_the_counter_is_not_believed(
    emulator: Emulator, minimal: HandmadePackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[bytes] = []
    run = EmulatedCounters.run

    def answer_again(counters: EmulatedCounters, command: bytes) -> bytes:
        answers.append(run(counters, command))
        return answers[0]

    monkeypatch.setattr(EmulatedCounters, "run", answer_again)
    assert await refusal(emulator, minimal, Slot()) == "counter-answer-refused"
