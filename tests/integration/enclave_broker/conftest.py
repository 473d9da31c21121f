"""A simulated device, and a runner that answers on the real link."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgeclave.simulator import Simulator
from tests.fixtures.edge_device import Device, Runner, serving


@pytest.fixture
async def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Device]:
    async with Simulator.running(tmp_path / "sim") as simulator:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", simulator.ca_file)
        monkeypatch.setenv("https_proxy", simulator.settings.proxy_url)
        monkeypatch.setenv("no_proxy", simulator.settings.address)
        made = Device(simulator, tmp_path, monkeypatch)
        yield made
        for process in made.processes:
            await process.stop()


@pytest.fixture
async def runner(device: Device) -> AsyncIterator[Runner]:
    """An open runner that is listening."""
    made = Runner()
    made.gate.set()
    async with serving(device, made):
        yield made
