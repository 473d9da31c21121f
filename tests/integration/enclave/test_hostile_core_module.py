"""A core module that breaks the canonical ABI wherever it can: it harms its own call and nothing else.

Each attack first emits a result and stores a value; neither may survive a call that does not succeed. The enclave stays
the same process, and the next call works. What each letter does stands in `tests/fixtures/wat/hostile_core.wat`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from edgeclave.platforms.emulator import Emulator
from edgeclave.platforms.enclave_process import EnclaveProcess
from tests.fixtures.wat.packages import wasm_package

from .conftest import Slot, call, reply, status

HOSTILE = Path(__file__).parents[2] / "fixtures" / "wat" / "hostile_core.wat"
TRAPS = {
    "a": "what it returns lies beyond its memory",
    "b": "what it returns lies at no even address",
    "c": "what it returns is a case there is none of",
    "d": "its reply lies beyond its memory",
    "e": "its reply has 4 GiB",
    "f": "its reply reaches over the end of its memory",
    "g": "its reply is no UTF-8",
    "h": "a name for a service lies beyond its memory",
    "i": "a text for the log has 4 GiB",
    "j": "a result is no UTF-8",
    "k": "it seals by a policy there is none of",
    "l": "an answer is to go beyond its memory",
    "m": "an answer is to go to no even address",
    "n": "it asks for 4 GiB of random bytes",
    "o": "it offers room for an answer beyond its memory",
    "p": "it calls a service while it is asked for room",
    "r": "it traps when it is asked for room",
    "v": "recursion without end",
    "w": "it calls a function as if it had another type",
    "x": "it calls a function beyond its table",
    "y": "it writes beyond its memory",
}
ENDLESS = {"q": "it is asked for room", "z": "it logs for ever"}
AFTERWARDS = {"s": "it never returns", "t": "it calls a service", "u": "it traps"}


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    folder = tmp_path_factory.mktemp("hostile")
    return Emulator(folder / "emulator", folder / "cache")


@pytest.fixture
async def hostile(device: Emulator, tmp_path: Path) -> AsyncIterator[EnclaveProcess]:
    package = wasm_package(
        tmp_path / "package",
        bytes(wat2wasm(HOSTILE.read_text())),
        services=["emit", "log", "random", "seal", "storage"],
        methods={name: {"channel": "any"} for name in ("attack", "echo")},
        limits={"memory_mib": 16, "deadline_ms": 1000, "message_kib": 64},
    )
    enclave = await device.start(package.path, Slot().request(package.recipients))
    yield enclave
    await enclave.kill()


async def _still_works(hostile: EnclaveProcess, process_id: int) -> None:
    assert reply(await call(hostile, "echo", {"still": "here"})) == {"still": "here"}
    assert hostile.process_id == process_id
    assert not hostile.ended.done()


async def test_without_an_attack_it_is_an_application_like_others(hostile: EnclaveProcess) -> None:
    outcome = await call(hostile, "attack", "-")
    assert reply(outcome) == "-"
    assert [result.output for result in outcome.results] == ["out"]
    assert outcome.state is not None


@pytest.mark.parametrize("letter", [pytest.param(letter, id=what) for letter, what in TRAPS.items()])
async def test_its_call_fails_and_commits_nothing(hostile: EnclaveProcess, letter: str) -> None:
    process_id = hostile.process_id
    outcome = await call(hostile, "attack", letter)
    assert status(outcome) == 500
    assert (outcome.results, outcome.state) == ((), None)
    assert outcome.poisoned
    await _still_works(hostile, process_id)


@pytest.mark.parametrize("letter", [pytest.param(letter, id=what) for letter, what in ENDLESS.items()])
async def test_what_takes_for_ever_ends_at_the_deadline(hostile: EnclaveProcess, letter: str) -> None:
    process_id = hostile.process_id
    outcome = await call(hostile, "attack", letter)
    assert status(outcome) == 504
    assert (outcome.results, outcome.state) == ((), None)
    await _still_works(hostile, process_id)


@pytest.mark.parametrize("letter", [pytest.param(letter, id=what) for letter, what in AFTERWARDS.items()])
async def test_what_it_does_when_its_reply_was_read(hostile: EnclaveProcess, letter: str) -> None:
    process_id = hostile.process_id
    outcome = await call(hostile, "attack", letter)
    assert status(outcome) == (504 if letter == "s" else 500)
    assert (outcome.results, outcome.state) == ((), None)
    await _still_works(hostile, process_id)
