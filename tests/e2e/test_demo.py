"""The first command of the README."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from tests.e2e.suite import edgeclave


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_the_demo_ends_with_everything_opened_and_a_summary(tmp_path: Path) -> None:
    machine_is_busy = psutil.cpu_percent(2.0) > 40
    done = edgeclave("demo", "--state", str(tmp_path / "demo"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "evidence: emulated" in done.stdout.splitlines()[-1]
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert summary["readings"] > 100
    assert summary["sealed"] == summary["verified"] == summary["opened"] > 0
    assert summary["anomalies"] >= 1 or machine_is_busy, "the burst of load was not noticed"
    assert (summary["refused"], summary["duplicates"], summary["gaps"]) == (0, 0, 0)
    assert summary["evidence_type"] == "emulated"
