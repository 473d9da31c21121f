"""A device whose trusted application comes from a real registry: first start, reboot without it, upgrade, damage."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgeclave.cose import thumbprint
from edgeclave.edge.link import GetEvidence
from edgeclave.evidence.collection import decode_collection
from edgeclave.evidence.eat import read_eat
from edgeclave.registry import Reference, RegistryAccess, push_package
from edgeclave.results.sealed import open_result, verify_result
from edgeclave.simulator import Simulator
from edgeclave.ta.package import read_package
from edgeclave.ta.signature import verify_package
from tests.fixtures.docker_registry import DockerRegistry
from tests.fixtures.waiting import eventually
from tests.fixtures.wat.packages import HandmadePackage, minimal_package

from .conftest import Device


@pytest.fixture
async def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Device]:
    """A new one, whose emulator has compiled nothing yet: what is written by hand takes no time to compile."""
    async with Simulator.running(tmp_path / "sim") as simulator:
        device = Device(simulator)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", simulator.ca_file)
        monkeypatch.setenv("https_proxy", simulator.environment("ta_runner")["https_proxy"])
        monkeypatch.setenv("no_proxy", simulator.settings.address)
        await device.start_runner()
        try:
            yield device
        finally:
            await device.kill_runner()


def entry(package: HandmadePackage, reference: str) -> dict[str, Any]:
    return {
        "package": reference,
        "digest": package.digest,
        "signer": verify_package(read_package(package.path)).identity.signer_id.hex(),
        "recipients": {"out": base64.urlsafe_b64encode(package.recipients).rstrip(b"=").decode()},
    }


async def push(registry: DockerRegistry, package: Path, tag: str) -> str:
    reference = Reference.parse(f"{registry.host}/plant/probe:{tag}")
    return str((await push_package(read_package(package), reference, RegistryAccess())).reference)


def reason(entry: dict[str, Any]) -> str | None:
    code: str | None = (entry.get("reason") or {}).get("code")
    return code


async def test_a_device_lives_from_a_registry_that_comes_and_goes(device: Device, invoke: Any, tmp_path: Path) -> None:
    older = minimal_package(tmp_path / "packages")
    newer = minimal_package(tmp_path / "packages", older.signer, version="2.0.0")
    registry = DockerRegistry(tmp_path / "registry")
    with registry.running():
        first, second = await push(registry, older.path, "1"), await push(registry, newer.path, "2")

    # The registry is away: the reason is reported, and the package is there as soon as the registry is.
    await device.deploy({"probe": entry(older, first)})
    waiting = await device.wait_for(lambda reported: reported["state"] == "backoff")
    assert reason(waiting) == "registry-unreachable"
    assert waiting["reason"]["advice"]
    with registry.running():
        running = await device.running()
    assert (running["digest"], reason(running)) == (older.digest, None)
    async with device.link() as link:
        reply = await invoke(link, "publish", {"hello": 1})
        evidence = (await link.request(GetEvidence(trusted_app="probe"), timeout_seconds=30)).evidence
    key = read_eat(decode_collection(evidence).eat).signing_key
    opened = open_result(verify_result(reply.results[0].sealed, key), older.signer.reader)
    assert json.loads(opened) == {"hello": 1}
    assert thumbprint(key).hex() == running["instanceId"]

    # Switched off and on, without the registry.
    await device.kill_runner()
    await device.start_runner()
    again = await device.wait_for(lambda reported: reported.get("epoch", 0) == 2)
    assert (again["state"], reason(again)) == ("running", None)

    # An upgrade that cannot be pulled stops nothing.
    await device.deploy({"probe": entry(newer, second)})
    refused = await device.wait_for(lambda reported: reason(reported) == "registry-unreachable")
    assert (refused["state"], refused["digest"]) == ("running", older.digest)
    with registry.running():
        await device.deploy({"probe": entry(newer, second.replace("probe:2", "probe:latest"))})
        upgraded = await device.wait_for(lambda reported: reported.get("version") == "2.0.0")
        assert (upgraded["state"], upgraded["digest"], reason(upgraded)) == ("running", newer.digest, None)

        # What is damaged in the cache comes from the registry again.
        cached = device.state / "packages" / f"{newer.digest.removeprefix('sha256:')}.ta"
        damaged = bytearray(cached.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        cached.write_bytes(damaged)
        os.kill(device.enclave_process(), signal.SIGKILL)
        await eventually(lambda: cached.exists() and cached.read_bytes() == newer.path.read_bytes(), 30)
        await device.wait_for(lambda reported: (reported["restarts"], reported["state"]) == (1, "running"))
