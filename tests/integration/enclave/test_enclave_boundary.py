"""The boundary from both sides: what the enclave inherits and accepts, and what the host bears from it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import sys
from pathlib import Path

import pytest

from edgeclave.enclave.messages import Counted
from edgeclave.enclave.pipe import encode_frame
from edgeclave.errors import EdgeclaveError
from edgeclave.platforms import enclave_process
from edgeclave.platforms.base import CallRequest, StartRequest
from edgeclave.platforms.emulator import Emulator
from edgeclave.platforms.enclave_process import Descriptors, EnclaveProcess
from tests.fixtures.wat.packages import (
    MINIMAL,
    WAITING,
    HandmadePackage,
    Signer,
    minimal_package,
    wasm_package,
    wat_package,
)

from .conftest import Slot, Start, call, enclaves_of_this_process, now, reply, status


def process_status(process_id: int) -> str:
    return Path(f"/proc/{process_id}/status").read_text()


def working_directory(process_id: int) -> Path:
    return Path(f"/proc/{process_id}/cwd").readlink()


def open_files(process_id: int) -> list[str]:
    links = []
    for entry in Path(f"/proc/{process_id}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them, when it is one's own
            links.append(str(entry.readlink()))
    return links


def code_files(process_id: int) -> list[str]:
    """Inodes of the memory files of compiled code that are mapped."""
    lines = Path(f"/proc/{process_id}/maps").read_text().splitlines()
    return sorted({line.split()[4] for line in lines if "memfd:compiled-code" in line})


def runs(process_id: int) -> bool:
    try:
        return "State:\tZ" not in process_status(process_id)
    except (FileNotFoundError, ProcessLookupError):
        return False


async def refusal(emulator: Emulator, package: HandmadePackage | Path) -> EdgeclaveError:
    path = package if isinstance(package, Path) else package.path
    with pytest.raises(EdgeclaveError) as error:
        await emulator.start(path, StartRequest(slot="slot", host_time=now()))
    return error.value


# What the process has


async def test_it_inherits_nothing_of_the_host(
    start: Start, minimal: HandmadePackage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("A_SECRET_OF_THE_HOST", "hunter2")
    with (tmp_path / "a file of the host").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        enclave = await start(minimal)
    process = Path(f"/proc/{enclave.process_id}")
    assert (process / "environ").read_bytes() == b""
    assert working_directory(enclave.process_id) == Path("/")
    names = open_files(enclave.process_id)
    assert not [name for name in names if not name.startswith(("pipe:", "/dev/null", "/memfd:compiled-code"))]
    assert os.getpgid(enclave.process_id) != os.getpgid(0)


async def test_it_has_limits_of_its_own(start: Start, minimal: HandmadePackage) -> None:
    enclave = await start(minimal)
    limits = {
        name: resource.prlimit(enclave.process_id, getattr(resource, name))
        for name in ("RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_NPROC", "RLIMIT_NOFILE", "RLIMIT_AS")
    }
    assert limits["RLIMIT_CORE"] == limits["RLIMIT_FSIZE"] == limits["RLIMIT_NPROC"] == (0, 0)
    assert limits["RLIMIT_NOFILE"] == (64, 64)
    assert limits["RLIMIT_AS"][1] < 1 << 30
    assert "NoNewPrivs:\t1" in process_status(enclave.process_id)


async def test_it_ends_with_its_parent(tmp_path: Path, minimal: HandmadePackage) -> None:
    script = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from edgeclave.platforms.base import StartRequest\n"
        "from edgeclave.platforms.emulator import Emulator\n"
        "async def main():\n"
        "    emulator = Emulator(Path(sys.argv[1]), Path(sys.argv[1]) / 'cache')\n"
        "    enclave = await emulator.start(Path(sys.argv[2]), StartRequest(slot='s', host_time=0))\n"
        "    print(enclave.process_id, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path / "emulator"), str(minimal.path), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await parent.communicate()
    for _ in range(100):
        if not runs(int(output)):
            return
        await asyncio.sleep(0.02)
    pytest.fail("the enclave outlived the process that started it")


async def test_a_process_that_cannot_be_started_is_a_clear_error(
    emulator: Emulator, minimal: HandmadePackage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(enclave_process.sys, "executable", str(tmp_path / "nowhere"))
    assert (await refusal(emulator, minimal)).code == "enclave-not-started"


async def test_a_cache_that_cannot_be_used_is_a_clear_error(minimal: HandmadePackage, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    error = await refusal(Emulator(tmp_path / "emulator", tmp_path / "cache"), minimal)
    assert (error.code, error.where) == ("cache-unusable", str(tmp_path / "cache"))


async def test_a_full_disk_costs_only_the_cache(emulator: Emulator, minimal: HandmadePackage) -> None:
    # /dev/full is what a full disk looks like to the enclave: each write to it fails with ENOSPC.
    package, hardware, full = (
        os.open(minimal.path, os.O_RDONLY),
        emulator._secrets(),
        os.open("/dev/full", os.O_WRONLY),
    )
    enclave = await EnclaveProcess.spawn(Descriptors(package, hardware, None, full), "slot")
    await enclave.start(Slot().request(None))
    assert reply(await call(enclave, "echo", 1)) == 1
    await enclave.kill()
    for descriptor in (package, hardware, full):
        os.close(descriptor)


# What it refuses to run


async def test_a_tampered_package_is_refused(emulator: Emulator, minimal: HandmadePackage) -> None:
    content = bytearray(minimal.path.read_bytes())
    position = content.index(minimal.wasm) + 100
    content[position] ^= 1
    minimal.path.write_bytes(content)
    assert (await refusal(emulator, minimal)).code == "wrong-digest"


async def test_a_missing_package_is_named(emulator: Emulator, tmp_path: Path) -> None:
    error = await refusal(emulator, tmp_path / "nowhere.ta")
    assert (error.code, error.where) == ("package-unreadable", str(tmp_path / "nowhere.ta"))


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        pytest.param('(component (import "host:files/open" (func)))', "import-refused", "host:files/open", id="import"),
        pytest.param("(component)", "no-invoke", "`invoke`", id="no invoke"),
        pytest.param(
            '(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))'
            ' (func (export "invoke") (canon lift (core func $i "f"))))',
            "no-invoke",
            "of the type in the WIT",
            id="an invoke of another type",
        ),
        pytest.param(
            "(component (core module $m (func $f unreachable) (start $f)) (core instance (instantiate $m)))",
            "does-not-start",
            "unreachable",
            id="a trap while it starts",
        ),
        pytest.param(
            "(component (core module $m (memory 4096)) (core instance (instantiate $m)))",
            "does-not-start",
            "memory",
            id="more memory than its limit",
        ),
    ],
)
async def test_code_that_does_not_fit_is_refused(
    emulator: Emulator, tmp_path: Path, text: str, code: str, says: str
) -> None:
    error = await refusal(emulator, wat_package(tmp_path / "package", text))
    assert error.code == code
    assert says in error.what


@pytest.mark.parametrize(
    ("wasm", "code"),
    [
        pytest.param(b"not wasm at all", "not-a-component", id="not WebAssembly"),
        pytest.param(b"(component)", "not-a-component", id="WebAssembly as text"),
        pytest.param(b"\0asm\x01\0\0\0", "core-module-refused", id="an empty core module"),
        pytest.param(b"\0asm\x0d\0\x01\0\xff\xff\xff", "wasm-refused", id="a broken component"),
    ],
)
async def test_bytes_that_are_no_component_are_refused(
    emulator: Emulator, tmp_path: Path, wasm: bytes, code: str
) -> None:
    assert (await refusal(emulator, wasm_package(tmp_path / "package", wasm))).code == code


async def test_storage_protection_that_is_not_there_is_refused(emulator: Emulator, tmp_path: Path) -> None:
    package = minimal_package(tmp_path / "package", storage_protection="rollback-protected")
    assert (await refusal(emulator, package)).code == "storage-protection-unavailable"


async def test_a_service_that_was_not_granted_is_an_error_or_a_trap_that_names_it(start: Start, tmp_path: Path) -> None:
    enclave = await start(minimal_package(tmp_path / "package", services=[]))
    for method, code in (("store", 507), ("publish", 507), ("random", 500), ("note", 500)):
        outcome = await call(enclave, method, "x")
        assert status(outcome) == code
        assert outcome.failure is not None
        assert "is not granted in the manifest" in outcome.failure.message
    assert reply(await call(enclave, "echo", 1)) == 1


async def test_there_is_no_sleep_that_outlives_the_deadline(start: Start, tmp_path: Path) -> None:
    enclave = await start(wat_package(tmp_path / "package", WAITING.read_text()))
    outcome = await call(enclave, "echo")
    assert status(outcome) == 500
    assert outcome.failure is not None
    assert "cannot wait" in outcome.failure.message
    assert not enclave.ended.done()


async def test_a_failure_cannot_claim_the_status_of_success(start: Start, tmp_path: Path) -> None:
    text = MINIMAL.read_text().replace("(i32.const 418)", "(i32.const 200)")
    outcome = await call(await start(wat_package(tmp_path / "package", text)), "fail", "why")
    assert status(outcome) == 502
    assert outcome.failure is not None
    assert outcome.failure.message == 'a failure with status 200, which means success: "why"'


# The cache of compiled code


async def test_compiled_code_is_used_again_and_altered_code_never(
    emulator: Emulator, start: Start, minimal: HandmadePackage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = await start(minimal)
    second = await start(minimal)
    assert (first.started.compiled, second.started.compiled) == (True, False)
    assert code_files(first.process_id) == code_files(second.process_id) != [], "both run the same memory"
    await first.kill()
    await second.kill()
    (kept,) = (tmp_path / "cache").glob("*.compiled")
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    enclave = await start(minimal)
    assert enclave.started.compiled
    assert reply(await call(enclave, "echo", 1)) == 1
    await enclave.kill()
    assert not (await start(minimal)).started.compiled, "the altered file was replaced"
    assert "it was altered" in caplog.text
    assert len(list((tmp_path / "cache").iterdir())) == 1, "no temporary file stays"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"\x7fELF" + bytes(4096), "it is not ours", id="a file of another"),
        pytest.param(b"", "it has no plausible size", id="an empty file"),
    ],
)
async def test_compiled_code_replaced_whole_is_not_used_and_said(
    start: Start,
    minimal: HandmadePackage,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
    said: str,
) -> None:
    await (await start(minimal)).kill()
    (kept,) = (tmp_path / "cache").glob("*.compiled")
    kept.write_bytes(content)
    enclave = await start(minimal)
    assert enclave.started.compiled
    await enclave.kill()  # what it logged has come by then
    assert [line.levelname for line in caplog.records if said in line.getMessage()] == ["WARNING"]


async def test_compiled_code_of_another_device_is_not_used(
    start: Start, minimal: HandmadePackage, other_device: Emulator, tmp_path: Path
) -> None:
    await start(minimal)
    (tmp_path / "cache").rename(tmp_path / "other-cache")
    assert (await start(minimal, on=other_device)).started.compiled


# A hostile host


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([b"\xff\xff\xff\xff"], id="a frame of 4 GiB"),
        pytest.param([b"GET / HTTP/1.1\r\n\r\n"], id="another protocol"),
        pytest.param([b"\0\0\0\x02{}"], id="JSON"),
        pytest.param([encode_frame(CallRequest(id="1", method="echo", payload="1", host_time=0))], id="a call first"),
        pytest.param([encode_frame(Counted(answer=b""))], id="an answer of the counter first"),
        pytest.param([b"\0\0"], id="half a length, then the end"),
    ],
)
async def test_garbage_on_the_pipe_ends_the_enclave_with_a_clear_line(
    emulator: Emulator, minimal: HandmadePackage, frames: list[bytes]
) -> None:
    package, hardware = os.open(minimal.path, os.O_RDONLY), emulator._secrets()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        "edgeclave.enclave",
        *Descriptors(package, hardware, None, None).arguments(),
        pass_fds=(package, hardware),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, log = await asyncio.wait_for(process.communicate(b"".join(frames)), 20)
    assert (process.returncode, output) == (1, b"")
    (line,) = (json.loads(line) for line in log.splitlines())
    assert line["source"] == "enclave"
    assert "bad-frame" in line["message"]
    os.close(package)
    os.close(hardware)


async def test_a_second_start_ends_the_enclave(start: Start, minimal: HandmadePackage) -> None:
    enclave = await start(minimal)
    with pytest.raises(EdgeclaveError, match="enclave-ended"):
        await enclave.start(Slot().request(None))


# A hostile enclave


async def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> EnclaveProcess:
    """A process that is started as an enclave and runs `body` instead."""
    script = tmp_path / "pretender"
    script.write_text(f"#!{sys.executable} -I\nimport os, sys, time\n{body}\n")
    script.chmod(0o700)
    monkeypatch.setattr(enclave_process.sys, "executable", str(script))
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        return await EnclaveProcess.spawn(Descriptors(null, null, None, None), "slot")
    finally:
        os.close(null)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param("os.write(1, b'\\xff' * 8); time.sleep(60)", "claims 4294967295 bytes", id="4 GiB"),
        pytest.param("os.write(1, b'\\0\\0\\0\\3abc'); time.sleep(60)", "not a reply", id="garbage"),
        pytest.param("os.write(1, b'\\0\\0\\0\\3a')", "closed the pipe", id="half a frame"),
        pytest.param("sys.exit(3)", "closed the pipe", id="an early end"),
        pytest.param("time.sleep(60)", "did not answer", id="silence"),
        pytest.param(
            "import msgspec; m = msgspec.msgpack.encode({'type': 'heartbeats'});"
            "os.write(1, len(m).to_bytes(4, 'big') + m); time.sleep(60)",
            "answered with `BeaconOutcome`",
            id="the answer to another question",
        ),
        pytest.param(
            "import msgspec; m = msgspec.msgpack.encode({'type': 'count', 'command': b'', 'keep': b'state'});"
            "os.write(1, len(m).to_bytes(4, 'big') + m); time.sleep(60)",
            "asked for a counter that it was not offered",
            id="a question to a counter that is not there",
        ),
    ],
)
async def test_an_enclave_that_breaks_the_protocol_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, says: str
) -> None:
    monkeypatch.setattr(enclave_process, "START_SECONDS", 1.0)
    enclave = await pretend(monkeypatch, tmp_path, body)
    with pytest.raises(EdgeclaveError) as error:
        await asyncio.wait_for(enclave.start(Slot().request(None)), 20)
    assert error.value.code == "enclave-ended"
    assert says in error.value.what
    assert enclave.ended.done()


async def test_a_flood_of_log_lines_is_cut(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "edgeclave.enclave")
    body = "os.write(2, b'x' * 3_000_000 + b'\\n')\nfor _ in range(5000): os.write(2, b'again\\n')"
    enclave = await pretend(monkeypatch, tmp_path, body)
    await enclave.ended
    messages = [record.getMessage() for record in caplog.records]
    assert max(map(len, messages)) <= 32 << 10
    assert len(messages) < 1000
    assert "were left out" in messages[-1]


async def test_log_lines_come_with_the_slot_and_cannot_forge_others(
    start: Start, minimal: HandmadePackage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "edgeclave.enclave")
    enclave = await start(minimal, Slot("kitchen"))
    await enclave.call(CallRequest(id="1", method="note", payload="[1,\n\t2]", host_time=0))
    await enclave.stop()
    records = [record for record in caplog.records if vars(record)["source"] == "trusted-application"]
    assert [record.getMessage() for record in records] == ["[1,", "\\t2]"]
    assert {vars(record)["slot"] for record in records} == {"kitchen"}


async def test_a_call_that_is_given_up_ends_the_enclave(start: Start, minimal: HandmadePackage) -> None:
    enclave = await start(minimal)
    looping = asyncio.create_task(call(enclave, "loop"))
    await asyncio.sleep(0.2)
    looping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looping
    assert (await enclave.ended).reason == "the request in progress was given up"


async def test_a_start_that_is_given_up_leaves_nothing_running(emulator: Emulator, tmp_path: Path) -> None:
    endless = wat_package(
        tmp_path / "package",
        "(component (core module $m (func $f (loop $again (br $again))) (start $f)) (core instance (instantiate $m)))",
    )
    open_before = sorted(open_files(os.getpid()))
    for delay in (0.0, 0.01, 0.1, 0.5, 1.0):
        starting = asyncio.create_task(emulator.start(endless.path, Slot().request(None)))
        await asyncio.sleep(delay)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert enclaves_of_this_process() == []
    assert [name for name in open_files(os.getpid()) if "memfd" in name] == []
    assert len(open_files(os.getpid())) <= len(open_before) + 2, "pipes of a process that was just ended"


async def test_calls_at_the_same_time_are_answered_one_after_the_other(start: Start, minimal: HandmadePackage) -> None:
    enclave = await start(minimal)
    outcomes = await asyncio.gather(*(call(enclave, "echo", number) for number in range(20)))
    assert [reply(outcome) for outcome in outcomes] == list(range(20))


async def test_the_minimal_application_does_what_it_should_not(start: Start, tmp_path: Path) -> None:
    limits = {"memory_mib": 16, "deadline_ms": 200, "message_kib": 1}
    enclave = await start(minimal_package(tmp_path / "package", Signer.make(), limits=limits))
    assert status(await call(enclave, "trap")) == 500
    assert status(await call(enclave, "sequence")) == 500
    assert status(await call(enclave, "loop")) == 504
    assert reply(await call(enclave, "grow", 1)) == 1
    assert status(await call(enclave, "echo", "x" * 1023)) == 413
    assert (await call(enclave, "publish", 1)).results[0].sequence == 1
