"""The same lockdown wherever it runs: as root, as an ordinary user, in a read-only root without capabilities."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.fixtures.wat.packages import HandmadePackage

_SCRIPT = """
import asyncio, json, os, sys
from pathlib import Path
from edgeclave.platforms.base import CallRequest, StartRequest
from edgeclave.platforms.emulator import Emulator

async def main():
    state = Path(sys.argv[1])
    emulator = Emulator(state / "emulator", state / "cache")
    for compiled in (True, False):
        enclave = await emulator.start(Path(sys.argv[2]), StartRequest(slot="s", host_time=0))
        assert enclave.started.compiled == compiled
        outcome = await enclave.call(CallRequest(id="1", method="echo", payload="1", host_time=0))
        status = Path(f"/proc/{enclave.process_id}/status").read_text()
        if compiled:
            await enclave.kill()
            await asyncio.sleep(0)
    try:
        Path(sys.argv[2]).with_name("written").touch()
        writable = True
    except OSError:
        writable = False
    lines = dict(line.split(":\\t", 1) for line in status.splitlines() if ":\\t" in line)
    print(json.dumps({
        "reply": outcome.reply, "seccomp": lines["Seccomp"], "capabilities": lines["CapEff"],
        "user": os.getuid(), "writable": writable,
    }))
    await enclave.kill()

asyncio.run(main())
"""
_NO_CAPABILITIES = "setpriv --no-new-privs --inh-caps=-all --bounding-set=-all"


async def run(*command: str) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    if b"unshare failed" in errors:
        pytest.skip(f"no user namespaces here: {errors.decode().strip()}")
    assert process.returncode == 0, errors.decode()
    return dict(json.loads(output))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


async def test_as_whoever_runs_the_tests(state: Path, minimal: HandmadePackage) -> None:
    said = await run(sys.executable, "-c", _SCRIPT, str(state), str(minimal.path))
    assert (said["reply"], said["seccomp"], said["writable"]) == ("1", "2", True)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare of util-linux")
async def test_as_an_ordinary_user(state: Path, minimal: HandmadePackage) -> None:
    user = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
    said = await run(*user, sys.executable, "-c", _SCRIPT, str(state), str(minimal.path))
    assert (said["reply"], said["seccomp"], said["user"]) == ("1", "2", 1000)
    assert int(str(said["capabilities"]), 16) == 0


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare of util-linux")
async def test_in_a_read_only_root_without_capabilities(state: Path, minimal: HandmadePackage) -> None:
    inside = (
        'mount -t tmpfs none "$1" && mount -o remount,bind,ro / && '
        f'exec {_NO_CAPABILITIES} "$0" -c "$3" "$1" "$2"'
    )  # fmt: skip
    namespaces = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc")
    said = await run(
        *namespaces, "sh", "-c", inside, sys.executable, str(state), str(minimal.path), _SCRIPT
    )  # fmt: skip
    assert (said["reply"], said["seccomp"], said["writable"]) == ("1", "2", False)
    assert int(str(said["capabilities"]), 16) == 0
