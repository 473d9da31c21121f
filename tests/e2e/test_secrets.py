"""The whole suite at work: no key of anybody is where it does not belong."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import psutil
import pytest

from edgeclave.simulator.settings import Settings
from edgeclave.simulator.state import SimulatorState
from tests.e2e.suite import Suite, suite
from tests.fixtures.secret_search import files, holds, private_number, shown_by

EMULATOR = Path("data/ta_runner/emulator")
PUBLIC = {EMULATOR / "attestation.pub.pem", Path("pki/root-ca.pem")}
"""All other files are for their owner only."""


def secrets_of(running: Suite, settings: Settings, module_keys: dict[str, str]) -> dict[str, bytes]:
    state, keys = running.prepared.simulator_state, running.prepared.keys
    pem = {path.name: path for folder in (keys, state / "pki") for path in folder.glob("*.key.pem")}
    return {
        **{name: private_number(path) for name, path in pem.items()},
        "root.key": (state / EMULATOR / "root.key").read_bytes(),
        "attestation.key.pem": private_number(state / EMULATOR / "attestation.key.pem"),
        "hub": base64.b64decode(settings.owner_key),
        "workload API": base64.b64decode(settings.sealing_key),
        **{module: base64.b64decode(key) for module, key in module_keys.items()},
    }


def owners_of(secret: str) -> set[Path]:
    """Files of the simulator in which a secret may lie."""
    if secret in ("root.key", "attestation.key.pem"):
        return {EMULATOR / secret}  # they stand in for hardware
    if secret in ("root-ca.key.pem", "edge-ca.key.pem"):
        return {Path("pki") / secret}
    if secret in ("hub", "workload API", "ta_runner", "enclave_broker", "sample_analytics"):
        return {Path("state.sqlite"), Path("state.sqlite-wal")}
    return set()


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_no_key_is_where_it_does_not_belong(tmp_path: Path, cache: Path) -> None:
    series = tmp_path / "series.csv"
    series.write_text("timestamp,value\n" + "".join(f"{number},{number % 7}\n" for number in range(3_000)))
    source = {"kind": "csv", "path": str(series), "speed": 300}
    with suite(tmp_path / "run", cache, source=source) as running:
        running.until(lambda: running.device.counters().get("sealed", 0) > 0, "results to be sealed")
        assert running.simulator is not None
        simulator = psutil.Process(running.simulator.pid)
        shown = {
            f"{name} of {' '.join(process.cmdline())}": content
            for process in (simulator, *simulator.children(recursive=True))
            for name, content in shown_by(process.pid).items()
        }
        assert running.read().exit_code == 0
    shown["simulator.log"] = (running.prepared.folder / "simulator.log").read_bytes()
    assert any("edgeclave.enclave" in name for name in shown)
    for module in ("ta_runner", "enclave_broker", "sample_analytics"):
        assert any(f"modules/{module}/main.py" in name for name in shown)

    state = SimulatorState(running.prepared.simulator_state)
    modules = {name: state.module(name).primary_key for name in ("ta_runner", "enclave_broker", "sample_analytics")}
    secrets = secrets_of(running, state.settings, modules)
    state.close()
    assert len(secrets) >= 12
    assert [
        (name, place) for name, secret in secrets.items() for place, text in shown.items() if holds(text, secret)
    ] == []

    on_disk = dict(files(running.prepared.simulator_state))
    assert any(path.parent == Path("logs") for path in on_disk)
    misplaced = {
        (name, path) for name, secret in secrets.items() for path, text in on_disk.items() if holds(text, secret)
    }
    assert {(name, path) for name, path in misplaced if path not in owners_of(name)} == set()
    assert {("root.key", EMULATOR / "root.key"), ("hub", Path("state.sqlite"))} <= misplaced, "the search finds them"
    modes = {path: stat.S_IMODE((running.prepared.simulator_state / path).stat().st_mode) for path in on_disk}
    assert {path for path, mode in modes.items() if mode & 0o077} <= PUBLIC
