"""`edgeclave ta debug`: a C trusted application stops in its source, and the enclave says that it could."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from edgeclave.errors import EdgeclaveError
from edgeclave.evidence.collection import decode_collection
from edgeclave.evidence.eat import read_eat
from edgeclave.evidence.emulator import verify_quote
from edgeclave.platforms.base import CallRequest, StartRequest
from edgeclave.platforms.debugger import Debugger
from edgeclave.platforms.emulator import Emulator
from tests.fixtures.builds import TRUSTED_APPS
from tests.fixtures.needs import tool
from tests.fixtures.wat.packages import minimal_package

pytestmark = pytest.mark.slow
PROBE = TRUSTED_APPS / "probe_c"


def line_of(text: str) -> int:
    lines = (PROBE / "app.c").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def debug(*arguments: str, commands: str, folder: Path, where: Path = PROBE) -> subprocess.CompletedProcess[str]:
    tool("gdb", "gdb")
    (folder / "commands.gdb").write_text(commands)
    command = [sys.executable, "-m", "edgeclave", "ta", "debug", str(where), *arguments]
    return subprocess.run(
        [*command, "--batch-commands", str(folder / "commands.gdb")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "COLUMNS": "1000"},
        stdin=subprocess.DEVNULL,
    )


def test_a_breakpoint_in_c_stops_with_arguments_and_source(tmp_path: Path) -> None:
    ended = debug(
        "--method",
        "emit",
        "--payload",
        '{"count": 2}',
        folder=tmp_path,
        commands="break app.c:emit\nrun\nbacktrace 3\nprint __vmctx->set()\nx/s &*payload.start\nnext\nnext\n"
        "print count\nshell sleep 3\ncontinue\n",
    )
    first = line_of("int64_t count = integer(payload")
    assert f"emit (payload=..., reply=...) at ./app.c:{first}" in ended.stdout, ended.stdout + ended.stderr
    assert f'{first}\t    int64_t count = integer(payload, "count", -1);' in ended.stdout
    assert "ec_dispatch" in ended.stdout, "the SDK's frames have their source too"
    assert '"{\\"count\\": 2}"' in ended.stdout, "pointers can be followed"
    assert "$2 = 2" in ended.stdout, "the local variable"
    # 5 seconds at the stop are over the deadline of the manifest (2 s), which does not hold here.
    assert '{"sequences":[1,2]}' in ended.stdout
    assert "emitted result 2 on out" in ended.stderr
    assert "exited normally" in ended.stdout
    assert ended.returncode == 0


def test_a_failure_is_shown(tmp_path: Path) -> None:
    payload = '{"status": 418, "message": "teapot"}'
    ended = debug("--method", "fail", "--payload", payload, folder=tmp_path, commands="run\n")
    assert "failure 418: teapot" in ended.stderr


def test_a_debugger_that_ends_early_is_no_error(tmp_path: Path) -> None:
    ended = debug("--method", "echo", folder=tmp_path, commands="break app.c:echo\nrun\nkill\n")
    assert "gdb ended before the call was answered" in ended.stderr
    assert ended.returncode == 0


def test_what_cannot_be_debugged_is_said(tmp_path: Path) -> None:
    python = debug(folder=tmp_path, commands="run\n", where=TRUSTED_APPS / "probe")
    assert "[no-debugger-for-python]" in python.stderr
    unnamed = debug(folder=tmp_path, commands="run\n")
    assert "[no-method]" in unnamed.stderr
    assert python.returncode == unnamed.returncode == 1


async def test_without_gdb_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(EdgeclaveError) as error:
        await Debugger().start([], ())
    assert error.value.code == "no-debugger"


async def test_a_debuggable_enclave_says_so_and_has_other_keys(tmp_path: Path) -> None:
    tool("gdb", "gdb")
    (tmp_path / "run.gdb").write_text("run\n")
    package = minimal_package(tmp_path / "package")
    folder, cache = tmp_path / "emulator", tmp_path / "cache"
    under_gdb = Emulator(folder, cache, Debugger(batch_commands=tmp_path / "run.gdb"))
    enclave = await under_gdb.start(package.path, StartRequest(slot="slot", host_time=0))
    assert not package.manifest.debug
    assert enclave.started.identity.debug
    collection = decode_collection(enclave.started.evidence)
    assert read_eat(collection.eat).identity.debug
    anchor = load_der_public_key(under_gdb.anchor())
    assert isinstance(anchor, ec.EllipticCurvePublicKey)
    assert verify_quote(collection.platform.value, anchor).debug
    outcome = await enclave.call(CallRequest(id="1", method="store", payload='"secret"', host_time=0))
    await enclave.stop()
    with pytest.raises(EdgeclaveError) as error:
        await Emulator(folder, cache).start(package.path, StartRequest(slot="slot", host_time=0, state=outcome.state))
    assert error.value.code == "sealed-in-another-debug-state"


@pytest.mark.parametrize("debuggable", [True, False])
def test_only_a_debuggable_process_is_open_to_debuggers(debuggable: bool) -> None:
    script = (
        "import ctypes\nfrom edgeclave.enclave import lockdown\n"
        f"lockdown.before_secrets(debuggable={debuggable})\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"  # PR_GET_DUMPABLE
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said == f"{int(debuggable)}\n"
