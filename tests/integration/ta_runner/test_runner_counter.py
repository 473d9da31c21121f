"""A runner that is killed in the middle of a commit, on a platform with a counter, and what a reader then sees."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeclave.cose import thumbprint
from edgeclave.evidence.collection import decode_collection
from edgeclave.evidence.eat import read_eat
from edgeclave.results.records import verify_open
from edgeclave.results.sealed import peek_result, verify_result
from edgeclave.results.stream import StreamHeads, open_link, result_link
from tests.fixtures.builds import REPOSITORY, BuiltPackage

from .conftest import _sets

SCRIPT = Path(__file__).parent / "killed_runner.py"
MODULES = os.pathsep.join([str(REPOSITORY / "modules" / "ta_runner"), str(REPOSITORY)])
POINTS = ("before it is kept", "before the counter moves", "before it leaves", "before it is stored")


async def run(state: Path, probe: BuiltPackage, call_id: str, phase: str = "-", point: str = "-") -> tuple[int, str]:
    recipients = base64.urlsafe_b64encode(_sets(probe)["out"]).rstrip(b"=").decode()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(str(SCRIPT), str(state), str(probe.path), probe.digest, probe.signer_id, recipients, call_id, phase, point),
        env={"PYTHONPATH": MODULES},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.fixture
def state(tmp_path: Path, warm_emulator: Path) -> Path:
    shutil.copytree(warm_emulator, tmp_path / "state")
    return tmp_path / "state"


@pytest.mark.parametrize("phase", ["start", "call"])
@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_runner_carries_each_call_out_once_and_its_reader_misses_nothing(
    state: Path, probe: BuiltPackage, phase: str, point: str
) -> None:
    code, output = await run(state, probe, "one")
    assert (code, json.loads(output)) == (0, {"number": 1, "sequence": 1})
    assert await run(state, probe, "two", phase, point) == (-signal.SIGKILL, "")
    for _ in range(2):
        code, output = await run(state, probe, "two")
        assert (code, json.loads(output)["number"]) == (0, 2)
    code, output = await run(state, probe, "three")
    assert (code, json.loads(output)["number"]) == (0, 3)
    assert read_upstream(state) == 3


def read_upstream(state: Path) -> int:
    """Reads the outbox as a reader does; returns how many results it accepted."""
    connection = sqlite3.connect(f"file:{state / 'runner.sqlite'}?mode=ro", uri=True)
    messages = list(connection.execute("SELECT content_type, body FROM outbox ORDER BY id"))
    instances = {}
    heads = StreamHeads()
    accepted = 0
    for kind, body in messages:
        if "evidence" in kind:
            claims = read_eat(decode_collection(body).eat)
            assert (claims.storage_level, claims.epoch.source) == ("rollback-protected", "emulated")
            instances[thumbprint(claims.signing_key)] = claims.signing_key
        elif "open" in kind:
            (verdict,) = heads.open(open_link(verify_open(body, list(instances.values())[-1]), counted=True))
            assert verdict.code == "opened"
        else:
            (verdict,) = heads.result(result_link(verify_result(body, instances[peek_result(body).instance_id])))
            assert verdict.code == "accepted"
            accepted += 1
    assert heads.pending() == []
    return accepted


async def test_the_twin_chooses_the_counter_and_cannot_take_it_away_again(device: Any, entry: Any, invoke: Any) -> None:
    await device.deploy({"probe": entry(platform="emulator-with-counter")})
    await device.running()
    assert "stands in for hardware" in (await device.reported())["platforms"]["emulator-with-counter"]["detail"]
    async with device.link() as link:
        assert json.loads((await invoke(link, "protection")).payload) == {"protection": "rollback-protected"}
        first = await invoke(link, "increment", {"counter": "n"}, call_id="once")
        os.kill(device.enclave_process(), signal.SIGKILL)
        await device.wait_for(lambda reported: reported["state"] == "running" and reported["restarts"] == 1)
        again = await invoke(link, "increment", {"counter": "n"}, call_id="once")
        assert json.loads(again.payload) == json.loads(first.payload) == {"value": 1}
        await device.deploy({"probe": entry()})
        reported = await device.wait_for(lambda reported: reported.get("reason"))
        assert reported["reason"]["code"] == "counter-missing"
        await device.running()
        assert json.loads((await invoke(link, "increment", {"counter": "n"})).payload) == {"value": 2}
