"""`edgeclave consume` as a process, reading the simulator's endpoint through the unmodified azure-eventhub client."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from edgeclave import cose
from edgeclave.cloud.connection import EVENT_HUB_VARIABLE
from edgeclave.cloud.events import Event
from edgeclave.keys import public_pem

from ...unit.cloud.conftest import DEVICE, OUTPUT, RUNTIME, SIGNER, Instance, World
from ..amqp.conftest import Authority, SqliteLog, running

PATIENCE = 40.0
EXIT_TROUBLED = 3


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def log(tmp_path: Path) -> SqliteLog:
    return SqliteLog(tmp_path / "log.sqlite")


@dataclasses.dataclass
class Setup:
    """Files of one relying party, and the command line that uses them."""

    folder: Path
    world: World
    authority: Authority

    def __post_init__(self) -> None:
        private = self.world.recipient_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key = self.folder / "reader.key.pem"
        key.touch(mode=0o600)
        key.write_bytes(private)
        (self.folder / "anchor.pub.pem").write_bytes(public_pem(self.world.attestation_key.public_key()))
        (self.folder / "hub.txt").write_text(self.authority.connection_string())
        (self.folder / "policy.toml").write_text(
            f'classes = ["emulated"]\nfreshness = "unknown"\n'
            f'[[anchors]]\nkind = "emulator"\nclass = "emulated"\npublic_key = "anchor.pub.pem"\ndevice = "{DEVICE}"\n'
            f'[runtime]\nemulator = ["{RUNTIME.hex()}"]\n'
            f'[[trusted_apps]]\nsigner_id = "{SIGNER.hex()}"\nproduct_id = 1\nminimum_security_version = 1\n'
        )

    async def start(
        self, *options: str, json_lines: bool = True, connection: str | None = None
    ) -> asyncio.subprocess.Process:
        """`connection` goes into the environment; without it the file with the right one is named."""
        hub = [] if connection else ["--eventhub", f"@{self.folder / 'hub.txt'}"]
        files = ["--key", str(self.folder / "reader.key.pem"), "--policy", str(self.folder / "policy.toml")]
        trust = ["--ca", self.authority.certificate, "--state", str(self.folder / "state")]
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgeclave", "consume", *hub, *files, *trust, *options),
            *(["--json"] if json_lines else []),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **({EVENT_HUB_VARIABLE: connection} if connection else {})},
            limit=4 << 20,
        )

    async def run(self, *options: str) -> tuple[int, list[dict[str, Any]]]:
        process = await self.start("--until-idle", "0.5", "--for", "30", *options)
        async with asyncio.timeout(PATIENCE):
            output, errors = await process.communicate()
        assert b"Traceback" not in errors, errors.decode()
        assert process.returncode is not None
        return process.returncode, [json.loads(line) for line in output.splitlines()]


@pytest.fixture
def setup(tmp_path: Path, authority: Authority) -> Setup:
    return Setup(tmp_path, World(), authority)


def store(log: SqliteLog, events: Iterable[Event], partition: str = "0") -> None:
    for event in events:
        log.append(
            partition,
            event.body,
            properties=dict(event.properties),
            content_type=event.content_type,
            iothub_connection_device_id=event.device,
            iothub_connection_module_id=event.module,
        )


def results(lines: Iterable[dict[str, Any]]) -> list[Any]:
    return [line["payload"] for line in lines if line["kind"] == "result"]


async def test_a_hub_is_read_to_its_end_and_goes_on_where_it_stopped(
    setup: Setup, log: SqliteLog, authority: Authority
) -> None:
    instance = Instance(setup.world)
    store(log, [*instance.begin(), *(instance.result({"n": n}) for n in range(300))])
    store(log, [setup.world.send("application/json", b"{}")], partition="1")
    async with running(log, authority):
        code, lines = await setup.run()
        assert (code, results(lines)) == (0, [{"n": n} for n in range(300)])
        store(log, [instance.result({"n": 300}), instance.close()])
        code, more = await setup.run()
    assert (code, [line["kind"] for line in more]) == (0, ["result", "close", "summary"])
    assert lines[-1] == {
        "kind": "summary",
        "verified": 300,
        "opened": 300,
        "refused": 0,
        "duplicates": 0,
        "gaps": 0,
        "held": 0,
        "losses": 0,
        "rollbacks": 0,
        "forks": 0,
        "resets": 0,
        "equivocations": 0,
        "ignored": 1,
        "evidenceType": ["emulated"],
    }
    first = next(line for line in lines if line["kind"] == "result")
    assert {"device", "slot", "output", "sequence", "instance", "epoch", "assurance", "calls", "hostTime"} <= set(first)


async def test_trouble_is_exit_code_three(setup: Setup, log: SqliteLog, authority: Authority) -> None:
    instance = Instance(setup.world)
    begin, good, bad, missing, late = instance.begin(), *(instance.result(n) for n in range(4))
    mangled = dataclasses.replace(bad, body=bad.body[:-1] + bytes([bad.body[-1] ^ 1]))
    store(log, [*begin, good, mangled, late])
    async with running(log, authority):
        code, lines = await setup.run()
        assert (code, lines[-1]["refused"], lines[-1]["gaps"]) == (EXIT_TROUBLED, 1, 1)
        store(log, [missing, bad])
        code, lines = await setup.run()
    assert (code, results(lines)) == (0, [1, 2, 3])


async def test_what_is_lost_or_restarted_goes_on_when_a_person_says_so(
    setup: Setup, log: SqliteLog, authority: Authority
) -> None:
    first = Instance(setup.world)
    begin, _, second = first.begin(), *(first.result(n) for n in range(2))
    anew = Instance(setup.world)
    store(log, [*begin, second, *anew.begin(), anew.result("anew")])
    async with running(log, authority):
        code, lines = await setup.run()
        assert (code, lines[-1]["gaps"], lines[-1]["resets"], lines[-1]["held"]) == (EXIT_TROUBLED, 1, 1, 2)
        gap = next(line for line in lines if line["kind"] == "gap")
        reset = next(line for line in lines if line["kind"] == "reset")
        code, lines = await setup.run("--accept-loss", f"{gap['instance']}/{OUTPUT}")
        assert (code, results(lines), lines[-1]["losses"]) == (EXIT_TROUBLED, [1], 1)
        code, lines = await setup.run("--accept-restart", reset["instance"])
        assert (results(lines), lines[-1]["held"]) == (["anew"], 0)
        store(log, [anew.result("after")])
        code, lines = await setup.run()
    assert (code, results(lines)) == (0, ["after"])


async def test_sigkill_at_any_time_neither_loses_nor_doubles_a_result(
    setup: Setup, log: SqliteLog, authority: Authority
) -> None:
    instance = Instance(setup.world)
    count = 1500
    store(log, [*instance.begin(), *(instance.result(n) for n in range(count))])
    seen: dict[int, Any] = {}
    async with running(log, authority):
        for kill_after in (50, 300, 500):
            process = await setup.start()
            assert process.stdout is not None
            for _ in range(kill_after):
                line = json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE))
                seen[line["number"]] = line
            process.kill()
            for rest in (await process.stdout.read()).splitlines():
                if rest.endswith(b"}"):
                    line = json.loads(rest)
                    seen[line["number"]] = line
            await process.wait()
        code, lines = await setup.run()
    for line in lines[:-1]:
        seen[line["number"]] = line
    assert code == 0
    assert results(seen[number] for number in sorted(seen)) == list(range(count))


async def test_a_hub_made_anew_is_read_from_its_beginning(
    setup: Setup, log: SqliteLog, authority: Authority, tmp_path: Path
) -> None:
    first = Instance(setup.world)
    store(log, [*first.begin(), *(first.result(n) for n in range(5))])
    async with running(log, authority):
        assert (await setup.run())[0] == 0
    fresh = SqliteLog(tmp_path / "fresh.sqlite")
    second = Instance(setup.world, predecessor=first)
    store(fresh, [*second.begin(), *(second.result(n) for n in range(20))])
    async with running(fresh, authority):
        code, lines = await setup.run()
    assert (code, results(lines)) == (0, list(range(20)))


async def test_reading_goes_on_after_the_hub_was_away(setup: Setup, log: SqliteLog, authority: Authority) -> None:
    instance = Instance(setup.world)
    store(log, [*instance.begin(), instance.result("before")])
    process = await setup.start()
    assert process.stdout is not None
    lines: list[dict[str, Any]] = []

    async def until_result() -> None:
        assert process.stdout is not None
        while not lines or lines[-1]["kind"] != "result":
            lines.append(json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE)))

    async with running(log, authority):
        await until_result()
    store(log, [instance.result("meanwhile")])
    async with running(log, authority):
        lines.append({"kind": "away"})
        await until_result()
        process.send_signal(signal.SIGTERM)
        output, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert results(lines) == ["before", "meanwhile"]
    assert json.loads(output.splitlines()[-1])["kind"] == "summary"
    assert process.returncode == 0
    assert b"event-hub-interrupted" in errors


async def test_from_latest_leaves_out_what_was_there(setup: Setup, log: SqliteLog, authority: Authority) -> None:
    store(log, [setup.world.send("application/edgeclave-result+cose", b"old")])
    async with running(log, authority):
        code, lines = await setup.run("--from", "latest")
    assert (code, [line["kind"] for line in lines]) == (0, ["summary"])


async def test_the_human_form_shows_results_and_hides_control_characters(
    setup: Setup, log: SqliteLog, authority: Authority
) -> None:
    instance = Instance(setup.world)
    store(log, [*instance.begin(), instance.result({"peak": 9}), instance.result(b"\x1b[2Jgone")])
    async with running(log, authority):
        process = await setup.start("--until-idle", "0.5", json_lines=False)
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    text = output.decode()
    assert f'{DEVICE}  anomaly/anomalies #1  {{"peak": 9}}' in text
    assert "2 results verified, 2 opened; evidence: emulated" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    "change",
    [pytest.param({"key": "b3RoZXI="}, id="wrong key"), pytest.param({"hub": "other"}, id="wrong hub")],
)
async def test_a_refused_connection_ends_with_one_error(
    setup: Setup, log: SqliteLog, authority: Authority, change: dict[str, str]
) -> None:
    async with running(log, authority):
        process = await setup.start(connection=authority.connection_string(**change))
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 1
    assert "refused the connection string's key" in errors.decode()
    assert "b3RoZXI" not in errors.decode()


async def test_an_untrusted_certificate_ends_with_one_error(
    setup: Setup, log: SqliteLog, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = Authority.create(tmp_path_factory.mktemp("stranger"))
    async with running(log, authority):
        process = await setup.start("--ca", stranger.certificate)
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 1
    assert "is not trusted" in errors.decode()


async def test_two_readers_on_one_state_folder_are_refused(setup: Setup, log: SqliteLog, authority: Authority) -> None:
    store(log, [Instance(setup.world).evidence()])
    async with running(log, authority):
        first = await setup.start()
        assert first.stdout is not None
        await asyncio.wait_for(first.stdout.readline(), PATIENCE)
        second = await setup.start()
        _, errors = await asyncio.wait_for(second.communicate(), PATIENCE)
        first.terminate()
        await asyncio.wait_for(first.communicate(), PATIENCE)
    assert (second.returncode, first.returncode) == (1, 0)
    assert "another reader works on this state folder" in errors.decode()


async def test_another_key_is_told_apart(setup: Setup, log: SqliteLog, authority: Authority) -> None:
    instance = Instance(dataclasses.replace(setup.world, recipient_key=cose.generate_key()))
    store(log, [*instance.begin(), instance.result(1)])
    async with running(log, authority):
        code, lines = await setup.run()
    assert (code, lines[-2]["code"], lines[-1]["verified"], lines[-1]["opened"]) == (
        EXIT_TROUBLED,
        "not-a-recipient",
        1,
        0,
    )
