"""Attempts to get out of the enclave process: by native code under its lockdown, and by a hostile application in it."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgeclave.enclave import landlock
from edgeclave.errors import EnclaveError
from edgeclave.platforms.base import StartRequest
from edgeclave.platforms.emulator import Emulator
from edgeclave.platforms.enclave_process import EnclaveProcess
from tests.fixtures.break_out import ALLOWED, ATTEMPTS, COMPILER_MAY, LANDLOCK_ATTEMPTS, REFUSED
from tests.fixtures.builds import REPOSITORY, TRUSTED_APPS, BuiltPackage, build_package
from tests.fixtures.wat.packages import HandmadePackage

from .conftest import Start, call, now, reply


@functools.cache
def outcomes() -> dict[str, dict[str, str]]:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.fixtures.break_out"],
        cwd=REPOSITORY, stdout=subprocess.PIPE, timeout=60, check=True,
    )  # fmt: skip
    return dict(json.loads(finished.stdout))


@pytest.mark.parametrize("attempt", [name for name in ATTEMPTS if name != ALLOWED])
def test_native_code_does_not_get_out(attempt: str) -> None:
    came_of_it = outcomes()[attempt]
    expected = "EPERM" if attempt in REFUSED else "killed"
    assert came_of_it["instance"] == expected
    assert came_of_it["compiler"] == ("done" if attempt in COMPILER_MAY else expected)
    assert came_of_it["control"] != "killed", "the attempt does reach the kernel without the lockdown"


def test_what_an_instance_needs_is_allowed() -> None:
    assert outcomes()[ALLOWED]["instance"] == outcomes()[ALLOWED]["compiler"] == "done"


@pytest.mark.parametrize(
    ("attempt", "since"),
    [(name, {"connect by TCP": 4, "signal the parent": 6}.get(name, 1)) for name in LANDLOCK_ATTEMPTS],
)
def test_landlock_alone_keeps_it_in_too(attempt: str, since: int) -> None:
    if landlock.version() < since:
        pytest.skip(f"this kernel's Landlock is version {landlock.version()}, this needs {since}")
    came_of_it = outcomes()[f"landlock: {attempt}"]
    assert came_of_it["landlock"] in ("EACCES", "EPERM")
    assert came_of_it["control"] not in ("EACCES", "EPERM")


async def test_the_running_enclave_is_under_both(start: Start, minimal: HandmadePackage) -> None:
    enclave = await start(minimal)
    tasks = list(Path(f"/proc/{enclave.process_id}/task").iterdir())
    assert len(tasks) == 2, "one thread runs the application, one advances the epoch"
    for task in tasks:
        status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")


async def test_a_forbidden_call_is_reported_as_what_it_was(start: Start, minimal: HandmadePackage) -> None:
    enclave = await start(minimal)
    os.kill(enclave.process_id, signal.SIGSYS)  # what the kernel does
    with pytest.raises(EnclaveError, match="the kernel killed it for a forbidden system call"):
        await call(enclave, "echo", 1)


@pytest.fixture(scope="module")
def hostile_package(tmp_path_factory: pytest.TempPathFactory) -> BuiltPackage:
    return build_package(TRUSTED_APPS / "hostile", tmp_path_factory.mktemp("hostile"))


@pytest.fixture
async def hostile(shared_emulator: Emulator, hostile_package: BuiltPackage) -> AsyncIterator[EnclaveProcess]:
    enclave = await shared_emulator.start(hostile_package.path, StartRequest(slot="hostile", host_time=now()))
    yield enclave
    await enclave.kill()


async def test_a_hostile_python_application_finds_nothing(hostile: EnclaveProcess) -> None:
    for way, expected in {
        "read a file": "No such file",
        "read a file of its own process": "No such file",
        "write a file": "No such file",
        "climb out of a folder": "No such file",
        "list a folder": "No such file",
        "open a descriptor of the host": "Bad file descriptor",
        "write to descriptors of the host": "Bad file descriptor",
        "connect": "denied",
        "listen": "denied",
        "send a datagram": "denied",
        "resolve a name": "Error",
        "run a program": "AttributeError",
        "make a process": "AttributeError",
        "start a thread": "can't start new thread",
        "kill": "AttributeError",
    }.items():
        assert expected in reply(await call(hostile, "attempt", {"way": way}))["error"], way
    for way, got in {
        "read standard input": "''",
        "see the environment": "None",
        "see the arguments": "None",
        "tell the time": "True",
        "draw random bytes": "True",
    }.items():
        assert reply(await call(hostile, "attempt", {"way": way})) == {"got": got}, way
    for way, says in {"sleep": "cannot wait", "end the process": "ended itself"}.items():
        outcome = await call(hostile, "attempt", {"way": way})
        assert outcome.failure is not None
        assert says in outcome.failure.message, way
    assert not hostile.ended.done()


async def test_printing_harms_nothing_and_starts_no_thread(hostile: EnclaveProcess) -> None:
    assert reply(await call(hostile, "print", "x" * 10_000)) is None
    assert len(list(Path(f"/proc/{hostile.process_id}/task").iterdir())) == 2
    assert reply(await call(hostile, "echo", 1)) == 1
