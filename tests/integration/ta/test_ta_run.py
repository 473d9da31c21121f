"""`ta run` as a developer uses it: real processes, the real emulator, a component written by hand."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from wasmtime import wat2wasm

from edgeclave.cli.main import run
from edgeclave.develop.device import Device
from edgeclave.develop.emulated_app import CallFailure, EmulatedApp
from edgeclave.errors import EdgeclaveError
from tests.fixtures.wat.packages import MINIMAL, WAITING

MANIFEST = """
name = "meter"
version = "1.0.0"
product_id = 5
security_version = 2
services = ["emit", "log", "storage", "random"]
[limits]
deadline_ms = 500
[methods.echo]
[methods.store]
[methods.fail]
[methods.loop]
[methods.publish]
[methods.trap]
[methods.note]
[outputs.out]
recipient_authority = "reader-authority"
"""


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGECLAVE_KEYS", str(tmp_path / "keys"))
    assert run(["keys", "new", "reader-authority"]) == 0
    return tmp_path / "keys"


@pytest.fixture
def package(tmp_path: Path, keys: Path) -> Path:
    return packed(tmp_path, MINIMAL)


def packed(tmp_path: Path, source: Path, more: str = "") -> Path:
    folder = tmp_path / "meter"
    (folder / "build").mkdir(parents=True, exist_ok=True)
    (folder / "ta.toml").write_text(f"{more}\n{MANIFEST}")
    (folder / "build" / "meter.wasm").write_bytes(bytes(wat2wasm(source.read_text())))
    assert run(["ta", "sign", str(folder)]) == 0
    return folder / "build" / "meter.ta"


def ta_run(package: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "edgeclave", "ta", "run", str(package), *arguments],
        input=typed,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        cwd=package.parent,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def test_a_call_prints_the_reply_and_what_was_emitted(package: Path) -> None:
    done = ta_run(package, "publish", '{"celsius": 21}')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ['{"celsius": 21}', 'emitted to out, number 1: {"celsius": 21}']
    as_json = json.loads(ta_run(package, "publish", "[1]", "--json").stdout)
    assert as_json == {
        "status": 200,
        "reply": [1],
        "results": [{"output": "out", "sequence": 1, "payload": [1]}],
    }


@pytest.mark.parametrize("number", ["1e400", "-1", "0.1000000000000000055511151231257827", "1" + "0" * 400])
def test_numbers_are_printed_as_the_application_wrote_them(package: Path, number: str) -> None:
    text = f'{{"a":{number},\n "a":"é"}}'
    done = ta_run(package, "publish", "--json", "--", text)
    one_line = text.replace("\n", " ")
    emitted = f'{{"output": "out", "sequence": 1, "payload": {one_line}}}'
    assert done.stdout == f'{{"status": 200, "reply": {one_line}, "results": [{emitted}]}}\n'
    assert ta_run(package, "publish", "--", number).stdout == f"{number}\nemitted to out, number 1: {number}\n"


@pytest.mark.parametrize(
    ("payload", "reply"),
    [
        pytest.param([], "null", id="none"),
        pytest.param(["-"], '{"from": "input"}', id="from standard input"),
        pytest.param(["@payload.json"], '{"from": "file"}', id="from a file"),
    ],
)
def test_where_the_payload_comes_from(package: Path, payload: list[str], reply: str) -> None:
    (package.parent / "payload.json").write_text('{"from": "file"}')
    done = ta_run(package, "echo", *payload, typed='{"from": "input"}')
    assert (done.stdout.strip(), done.returncode) == (reply, 0)


def test_the_log_goes_to_standard_error(package: Path) -> None:
    done = ta_run(package, "note", '"hello"')
    assert 'trusted-application: "hello"' in done.stderr
    assert done.stdout == '"hello"\n'  # the reply


@pytest.mark.parametrize(
    ("method", "payload", "status"),
    [
        pytest.param("fail", '"no"', 418, id="the application's own failure"),
        pytest.param("nothing", "1", 404, id="a method that is not declared"),
        pytest.param("echo", "{", 400, id="a payload that is not JSON"),
        pytest.param("trap", "1", 500, id="a trap"),
        pytest.param("loop", "1", 504, id="an endless loop"),
    ],
)
def test_a_failed_call_ends_with_its_status(package: Path, method: str, payload: str, status: int) -> None:
    done = ta_run(package, method, payload)
    assert done.returncode == 1
    assert f"failed with {status}: " in done.stderr
    assert done.stdout == ""
    as_json = ta_run(package, method, payload, "--json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["status"] == status


def altered(package: Path) -> list[str]:
    data = bytearray(package.read_bytes())
    data[len(data) // 2] ^= 1
    package.write_bytes(data)
    return [str(package), "echo"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(lambda package: [str(package)], "bad-usage", id="no method"),
        pytest.param(lambda package: [str(package), "echo", "--serve"], "bad-usage", id="both a method and --serve"),
        pytest.param(lambda package: ["none.ta", "echo"], "package-unreadable", id="no such package"),
        pytest.param(lambda package: [str(package.parent), "echo"], "no-manifest", id="a folder that is no project"),
        pytest.param(lambda package: [str(package.parents[1]), "echo"], "no-source", id="a project without sources"),
        pytest.param(lambda package: [str(package), "echo", "@none"], "no-payload", id="no such payload"),
        pytest.param(lambda package: [str(package), "echo", '"\udcff"'], "no-payload", id="a payload that is no UTF-8"),
        pytest.param(altered, "wrong-digest", id="an altered package"),
    ],
)
def test_what_cannot_be_run(
    package: Path, arguments: Callable[[Path], list[str]], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    state = ["--state", str(package.parent / "state")]
    assert run(["ta", "run", *arguments(package), *state]) == 1
    said = capsys.readouterr().err
    assert f"[{code}]" in said
    assert "do:" in said


def test_serve_reads_calls_from_a_pipe(package: Path) -> None:
    done = ta_run(package, "--serve", typed='echo {"a": 1}\n\necho\npublish 7\nmethods\nhelp\nquit\necho 9\n')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:4] == ['{"a": 1}', "null", "7", "emitted to out, number 1: 7"]
    assert "echo (any)" in done.stdout
    assert "METHOD [PAYLOAD]" in done.stdout
    assert "9" not in done.stdout.splitlines()


def test_serve_goes_on_after_failures_and_ends_with_1(package: Path) -> None:
    done = ta_run(package, "--serve", "--json", typed='fail "no"\ntrap\necho 1\n')
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["status"] for line in lines] == [418, 500, 200]


def test_serve_goes_on_after_a_line_that_is_no_utf_8(package: Path) -> None:
    done = ta_run(package, "--serve", "--json", typed='echo "\udcff\udcfe"\n\udcff\necho 1\n')
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["status"] for line in lines] == [200, 404, 200]


def test_serve_at_a_terminal_has_a_prompt_and_a_history(package: Path, tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "edgeclave", "ta", "run", str(package), "--serve", "--state", str(tmp_path / "s")]
    environment = {**os.environ, "TERM": "dumb"}
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        assert "> " in read_until(controller, "> ")
        os.write(controller, b"echo 41\n")
        assert "41" in read_until(controller, "> ")
        os.write(controller, b"\x04")
        assert process.wait(20) == 0
    os.close(controller)
    history = tmp_path / "s" / "history"
    assert "echo 41" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def read_until(descriptor: int, text: str) -> str:
    seen = ""
    deadline = time.monotonic() + 30
    os.set_blocking(descriptor, False)
    while text not in seen:
        assert time.monotonic() < deadline, seen
        try:
            seen += os.read(descriptor, 1 << 16).decode()
        except BlockingIOError:
            time.sleep(0.02)
    return seen


def device(tmp_path: Path, keys: Path) -> Device:
    return Device(tmp_path / "device", tmp_path / "device" / "slots" / "meter.state", keys)


def test_trusted_storage_and_history_go_on_in_the_next_run(package: Path, tmp_path: Path, keys: Path) -> None:
    with EmulatedApp(package, device(tmp_path, keys)) as app:
        app.call("store", "kept")
        app.call("publish", 1)
        first = app.running.attested
        app.restart()
        assert app.running.attested.epoch.predecessor == first.instance_id
    with EmulatedApp(package, device(tmp_path, keys)) as app:
        assert app.running.attested.epoch.number == 3
        assert not app.running.compiled
        app.call("publish", 2)
        assert [(result.sequence, result.payload) for result in app.results] == [(1, 2)]


def test_an_application_that_runs_already_with_this_state(package: Path, tmp_path: Path, keys: Path) -> None:
    here = device(tmp_path, keys)
    with EmulatedApp(package, here) as app:
        with pytest.raises(EdgeclaveError) as refused, EmulatedApp(package, here):
            pass
        assert refused.value.code == "state-in-use"
        assert app.call("echo", 1) == 1
    with here.state.with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        pytest.param(lambda path: path.write_bytes(b"\xc1"), "state-unreadable", id="not ours"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-9]), "state-unreadable", id="cut off"),
        pytest.param(
            lambda path: path.write_bytes(path.read_bytes().replace(b"\xa5state\xc5", b"\xa5shtat\xc5")),
            "shown-result-refused",
            id="without the state that the rest belongs to",
        ),
    ],
)
def test_damaged_state_is_never_an_empty_store(
    package: Path, tmp_path: Path, keys: Path, damage: Callable[[Path], Any], code: str
) -> None:
    here = device(tmp_path, keys)
    with EmulatedApp(package, here) as app:
        app.call("publish", 1)
    damage(here.state)
    with pytest.raises(EdgeclaveError) as refused, EmulatedApp(package, here):
        pass
    assert refused.value.code == code


def test_state_of_another_signer_is_refused_with_the_way_out(package: Path, tmp_path: Path, keys: Path) -> None:
    here = device(tmp_path, keys)
    with EmulatedApp(package, here) as app:
        app.call("store", "kept")
    assert run(["ta", "sign", str(package.parents[1]), "--key", "somebody-else"]) == 0
    with pytest.raises(EdgeclaveError) as refused, EmulatedApp(package, here):
        pass
    assert refused.value.code == "sealed-by-another"
    assert "remove this file to begin anew" in refused.value.advice
    here.state.unlink()
    with EmulatedApp(package, here) as app:
        assert app.running.attested.epoch.number == 1


def test_new_keys_of_the_reader_and_the_authority_are_obeyed(package: Path, tmp_path: Path, keys: Path) -> None:
    here = device(tmp_path, keys)
    with EmulatedApp(package, here) as app:
        app.call("publish", 1)
    for path in keys.glob("developer-reader.*"):
        path.unlink()
    with EmulatedApp(package, here) as app:
        app.call("publish", 2)
        assert app.running.attested.recipients["out"][0] == 2
    for path in keys.glob("reader-authority.*"):
        path.unlink()
    assert run(["keys", "new", "reader-authority"]) == 0
    assert run(["ta", "sign", str(package.parents[1])]) == 0
    with EmulatedApp(package, here) as app:
        app.call("publish", 3)
        assert app.running.attested.recipients["out"][0] == 3


def test_without_the_authority_s_private_key_nothing_is_emitted(package: Path, tmp_path: Path, keys: Path) -> None:
    (keys / "reader-authority.key.pem").unlink()
    told: list[str] = []
    with EmulatedApp(package, device(tmp_path, keys), told.append) as app:
        assert app.call_text("publish", "1").results == ()
    assert any("output out has no readers here" in line for line in told)


def test_a_state_that_cannot_be_kept(package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(["ta", "run", str(package), "echo", "--state", str(tmp_path / "file" / "state")]) == 1
    assert "[state-not-written]" in capsys.readouterr().err


def test_rollback_protected_storage_has_a_counter_and_notices_older_state(tmp_path: Path, keys: Path) -> None:
    package = packed(tmp_path, MINIMAL, 'storage_protection = "rollback-protected"')
    here = device(tmp_path, keys)
    with EmulatedApp(package, here) as app:
        assert app.running.attested.storage_level == "rollback-protected"
        app.call("store", "old")
        older = here.state.read_bytes()
        app.call("store", "new")
        app.restart()
        app.call("publish", 1)
    with EmulatedApp(package, here) as app:
        app.call("store", "newer")
    here.state.write_bytes(older)
    with pytest.raises(EdgeclaveError) as refused, EmulatedApp(package, here):
        pass
    assert "remove this file to begin anew" not in refused.value.advice  # the counter would refuse that too


def test_failures_of_a_call_are_raised(package: Path, tmp_path: Path, keys: Path) -> None:
    with EmulatedApp(package, device(tmp_path, keys)) as app:
        with pytest.raises(CallFailure, match="418") as failed:
            app.call("fail", "no")
        assert (failed.value.status, failed.value.message) == (418, '"no"')
        with pytest.raises(CallFailure, match="504"):
            app.call("loop")
        assert app.call("echo", "é") == "é"


def test_an_enclave_that_was_killed_is_an_error_and_can_be_restarted(package: Path, tmp_path: Path, keys: Path) -> None:
    with EmulatedApp(package, device(tmp_path, keys)) as app:
        os.kill(app.running._enclave.process_id, 9)  # type: ignore[attr-defined]
        with pytest.raises(EdgeclaveError) as ended:
            app.call("echo")
        assert ended.value.code == "enclave-ended"
        app.restart()
        assert app.call("echo", 5) == 5


def test_a_code_that_cannot_start_leaves_nothing_running(tmp_path: Path, keys: Path) -> None:
    package = packed(tmp_path, WAITING)
    before = threads()
    with pytest.raises(EdgeclaveError), EmulatedApp(package, device(tmp_path, keys)) as app:
        app.call("echo")
    assert threads() == before


def threads() -> int:
    return sum(thread.name == "edgeclave-emulator" for thread in threading.enumerate())


INTERRUPTED = """
import signal, sys, threading
from pathlib import Path
from edgeclave.develop.device import Device
from edgeclave.develop.emulated_app import EmulatedApp
# As Ctrl-C does, and again as a person would: Python drops an exception that a signal raises in a destructor.
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.05, 10)
package, folder, keys = map(Path, sys.argv[1:])
try:
    with EmulatedApp(package, Device(folder, folder / "slots" / "meter.state", keys)):
        threading.Event().wait()
except KeyboardInterrupt:
    signal.setitimer(signal.ITIMER_REAL, 0)
    import psutil
    print([child.pid for child in psutil.Process().children()], threading.active_count())
"""


def test_a_start_that_is_interrupted_leaves_nothing_running(package: Path, tmp_path: Path, keys: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(package), str(tmp_path / "device"), str(keys)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("[] 1", 0), done.stderr


@pytest.mark.parametrize("seconds", [pytest.param(0, id="at once"), pytest.param(2, id="when it has started")])
def test_an_interruption_that_comes_before_anybody_waits_leaves_nothing_running(
    package: Path, tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    really = asyncio.run_coroutine_threadsafe
    scheduled: list[object] = []

    def interrupted(work: Any, loop: asyncio.AbstractEventLoop) -> Any:
        scheduled.append(really(work, loop))
        if len(scheduled) == 1:
            time.sleep(seconds)
            raise KeyboardInterrupt
        return scheduled[-1]

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(KeyboardInterrupt), EmulatedApp(package, device(tmp_path, keys)):
        pass
    assert {child.pid for child in psutil.Process().children()} <= before
