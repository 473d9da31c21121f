"""Keys, the signed package and its compiled code are made once and kept between test runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.suite import ROOT
from tests.fixtures import needs


@pytest.fixture(scope="session")
def cache() -> Path:
    return ROOT / ".edgeclave" / "test-e2e"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    return needs.shared("data")


@pytest.fixture(scope="session")
def windows(shared_data: Path) -> list[tuple[str, str]]:
    (labelled,) = json.loads((shared_data / "machine_temperature_windows.json").read_text()).values()
    return [(start[:19], end[:19]) for start, end in labelled]
