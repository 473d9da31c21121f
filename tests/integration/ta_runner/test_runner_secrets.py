"""Secrets of a device at work are in no argument, environment or log line, and in no file but their own.

The emulator's keys do lie on the disk: they stand in for what a TEE has in silicon. They must be nowhere else.
"""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fixtures.builds import BuiltPackage
from tests.fixtures.secret_search import files, holds, private_number, shown_by

VALUE = "a value that only the trusted application may read"
FOR_THE_READER = "a payload that only its reader may read"
ROOT, ATTESTATION = Path("emulator/root.key"), Path("emulator/attestation.key.pem")
PUBLIC = {Path("emulator/attestation.pub.pem"): 0o644}


@pytest.fixture
def secrets(device: Any, probe: BuiltPackage) -> dict[str, bytes]:
    settings = device.simulator.settings
    return {
        "root key": (device.state / ROOT).read_bytes(),
        "attestation key": private_number(device.state / ATTESTATION),
        "reader's key": private_number(probe.keys / "reader.key.pem"),
        "authority's key": private_number(probe.keys / "reader-authority.key.pem"),
        "signer's key": private_number(probe.keys / "developer.key.pem"),
        "hub's key": base64.b64decode(settings.owner_key),
        "module's key": base64.b64decode(device.simulator.state.module("ta_runner").primary_key),
        "stored value": VALUE.encode(),
        "sealed payload": FOR_THE_READER.encode(),
    }


async def test_secrets_stay_where_they_belong(device: Any, entry: Any, invoke: Any, secrets: dict[str, bytes]) -> None:
    await device.deploy({"probe": entry(), "refused": entry(signer="0" * 64)})
    await device.running()
    async with device.link() as link:
        await invoke(link, "put", {"key": "k", "value": VALUE})
        await invoke(link, "emit", {"text": FOR_THE_READER})
        await invoke(link, "seal", {"plaintext": VALUE, "context": "c", "policy": "unique"})
        for failing in ("trap", "confidential", "no-such"):
            assert (await invoke(link, failing, {"text": FOR_THE_READER})).status >= 400
        runner, enclave = shown_by(device.runner.pid), shown_by(device.enclave_process())
    assert enclave["environ"] == b""
    assert await device.kill_runner(15) == 0
    said = {
        **{f"the runner's {name}": content for name, content in runner.items()},
        **{f"the enclave's {name}": content for name, content in enclave.items()},
        "the log": json.dumps(device.log).encode(),
        "what went upstream": b"".join(body for _, _, body in device.upstream()),
    }
    assert b"wrong-signer" in said["the log"], "it is a log of what happened"
    found = {(name, place) for name, secret in secrets.items() for place, text in said.items() if holds(text, secret)}
    assert found == set()

    on_disk = {
        (name, path) for name, secret in secrets.items() for path, text in files(device.state) if holds(text, secret)
    }
    assert on_disk == {("root key", ROOT), ("attestation key", ATTESTATION)}, "only what stands in for hardware"
    assert {path for path, text in files(device.state) if b"PRIVATE KEY" in text} == {ATTESTATION}


async def test_only_the_owner_reads_what_a_device_keeps(device: Any, entry: Any, invoke: Any) -> None:
    await device.deploy({"probe": entry(platform="emulator-with-counter")})
    await device.running()
    async with device.link() as link:
        await invoke(link, "put", {"key": "k", "value": VALUE})
        modes = {path.relative_to(device.state): stat.S_IMODE(path.stat().st_mode) for path in device.state.rglob("*")}
    assert any(path.parent.name == "counters" for path in modes)
    assert {path: mode for path, mode in modes.items() if mode & 0o077} == PUBLIC
    assert stat.S_IMODE(device.state.stat().st_mode) == 0o700


def test_the_search_finds_a_secret_however_it_is_written(tmp_path: Path) -> None:
    secret = bytes(range(100, 132))
    for written in (secret, secret.hex().encode(), base64.b64encode(b"ab" + secret), base64.urlsafe_b64encode(secret)):
        assert holds(b"before" + written + b"after", secret)
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    assert holds(pem, private_number(tmp_path / "key.pem"))
    assert not holds(pem, secret)
