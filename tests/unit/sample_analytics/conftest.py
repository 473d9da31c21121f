"""The trusted application's modules importable as plain Python, and the shared series."""

from __future__ import annotations

import csv
import importlib.util
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType

import pytest

from edgeclave.ta.build import GUEST_PYTHON
from tests.fixtures import needs

REPOSITORY = Path(__file__).resolve().parents[3]
TRUSTED_APP = REPOSITORY / "modules" / "sample_analytics" / "trusted_app"

sys.path[:0] = [str(TRUSTED_APP), str(GUEST_PYTHON)]


def fresh_app() -> ModuleType:
    """app.py as a new instance of the trusted application has it: nothing in memory."""
    spec = importlib.util.spec_from_file_location("sample_trusted_app", TRUSTED_APP / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def machine_csv() -> Path:
    return needs.shared("data/machine_temperature_system_failure.csv")


@pytest.fixture(scope="session")
def machine_series(machine_csv: Path) -> list[tuple[datetime, float]]:
    """All 22,695 readings, in the order of the file."""
    with machine_csv.open() as file:
        rows = list(csv.DictReader(file))
    return [(datetime.fromisoformat(row["timestamp"]), float(row["value"])) for row in rows]
