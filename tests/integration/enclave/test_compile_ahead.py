"""Compiled before it is started: beside what runs in the slot, by the same checks, and with nothing left over."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from edgeclave.errors import EdgeclaveError
from edgeclave.platforms.emulator import Emulator
from edgeclave.platforms.enclave_process import Descriptors, EnclaveProcess
from tests.fixtures.wat.packages import HandmadePackage, minimal_package, wasm_package

from .conftest import Slot, Start, call, enclaves_of_this_process, reply


async def test_it_starts_from_what_was_compiled_while_another_ran_in_its_slot(
    emulator: Emulator, start: Start, minimal: HandmadePackage, tmp_path: Path
) -> None:
    slot = Slot()
    old = await start(minimal, slot)
    state = slot.state
    package = minimal_package(tmp_path / "package", minimal.signer, version="2.0.0")
    await emulator.compile(package.path, slot.name)
    assert reply(await call(old, "echo", 1)) == 1
    assert (len(enclaves_of_this_process()), slot.state, slot.recovered) == (1, state, [])
    await old.kill()
    new = await start(package, slot)
    assert (new.started.compiled, new.started.manifest.version) == (False, "2.0.0")
    assert (new.started.epoch, reply(await call(new, "echo", 2))) == (2, 2)


async def test_what_was_compiled_is_not_compiled_again(
    emulator: Emulator, minimal: HandmadePackage, tmp_path: Path
) -> None:
    files = []
    for _ in range(2):
        await emulator.compile(minimal.path, "slot")
        files.append([(file.name, file.stat().st_ino) for file in (tmp_path / "cache").iterdir()])
    assert files[0] == files[1] != []


@pytest.mark.parametrize(
    ("wasm", "code"),
    [
        pytest.param(b"\0asm\x01\0\0\0", "core-module-refused", id="an empty core module"),
        pytest.param(b"\0asm\x0d\0\x01\0\xff\xff\xff", "wasm-refused", id="a broken component"),
    ],
)
async def test_what_cannot_run_is_refused_and_not_kept(
    emulator: Emulator, tmp_path: Path, wasm: bytes, code: str
) -> None:
    package = wasm_package(tmp_path / "package", wasm)
    with pytest.raises(EdgeclaveError) as refused:
        await emulator.compile(package.path, "slot")
    assert refused.value.code == code
    assert list((tmp_path / "cache").iterdir()) == enclaves_of_this_process() == []


async def test_when_given_up_it_leaves_nothing(emulator: Emulator, minimal: HandmadePackage) -> None:
    for delay in (0.0, 0.05, 0.3):
        compiling = asyncio.create_task(emulator.compile(minimal.path, "slot"))
        await asyncio.sleep(delay)
        compiling.cancel()
        await asyncio.gather(compiling, return_exceptions=True)
        assert enclaves_of_this_process() == []


async def test_a_process_that_compiled_takes_no_other_request(emulator: Emulator, minimal: HandmadePackage) -> None:
    package, hardware = os.open(minimal.path, os.O_RDONLY), emulator._secrets()
    enclave = await EnclaveProcess.spawn(Descriptors(package, hardware, None, None), "slot")
    os.close(package)
    os.close(hardware)
    assert await enclave.compile()
    with pytest.raises(EdgeclaveError, match="enclave-ended"):
        await enclave.start(Slot().request(minimal.recipients))


async def test_an_instance_that_is_asked_to_compile_ends(start: Start, minimal: HandmadePackage) -> None:
    with pytest.raises(EdgeclaveError, match="enclave-ended"):
        await (await start(minimal)).compile()
