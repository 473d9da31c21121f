"""`edgeclave consume --archive` as a process that is killed, and `edgeclave verify` of what it kept."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from edgeclave import cose
from edgeclave.cli.main import run
from edgeclave.cloud.verifier_service.keyring import new_key, now_utc

from ...unit.cloud.conftest import Instance, World
from ..amqp.conftest import Authority, SqliteLog, running
from .test_cloud_consume import PATIENCE, Setup, store

COUNT = 600


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path, World(), Authority.create(tmp_path))


async def test_what_was_read_is_archived_though_it_was_killed(setup: Setup, tmp_path: Path, capsys) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    instance = Instance(setup.world)
    events = [instance.result(n) for n in range(COUNT)]
    store(log, [*instance.begin(), *events])
    archive, keys = tmp_path / "archive", tmp_path / "keys"
    new_key(keys, "one", now_utc())
    options = ["--archive", str(archive), "--verifier-keys", str(keys)]
    seen: set[str] = set()
    async with running(log, setup.authority):
        for kill_after in (20, 200):
            process = await setup.start(*options)
            assert process.stdout is not None
            for _ in range(kill_after):
                line = json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE))
                seen |= {line["digest"]} if line["kind"] == "result" else set()
            process.kill()
            await process.wait()
            kept = {path.stem for path in archive.glob("results/*/*.json")}
            assert seen <= kept  # durable before anybody was told
        code, _ = await setup.run(*options)
    assert code == 0
    records = sorted(archive.glob("results/*/*.json"))
    assert {path.stem for path in records} == {cose.sha256(event.body).hex() for event in events}
    assert [path.suffix for path in sorted((archive / "evidence").iterdir()) if path.suffix != ".new"] == [
        ".cbor",
        ".jwt",
    ]
    (setup.folder / "anchor.pub.pem").unlink()  # the archived policy holds the key
    assert run(["verify", str(records[0]), "--at", str(int(time.time())), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {check["point"]: check["verdict"] for check in report["checks"]}["result"] == "passed"


async def test_an_archive_needs_a_signing_key(setup: Setup, tmp_path: Path) -> None:
    process = await setup.start("--archive", str(tmp_path / "archive"), "--verifier-keys", str(tmp_path / "none"))
    _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 1
    assert b"[no-signing-key]" in errors
