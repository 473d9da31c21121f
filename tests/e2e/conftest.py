"""Keys, the signed package and its compiled code are made once and kept between test runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.e2e.suite import ROOT


@pytest.fixture(scope="session")
def cache() -> Path:
    return ROOT / ".edgeclave" / "test-e2e"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real inputs that are not part of the product; in CI they must be there."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{folder} is missing: the test series lies next to the checkout")
        pytest.skip(f"{folder} is missing: put the test series there to run this test")
    return folder


@pytest.fixture(scope="session")
def windows(shared_data: Path) -> list[tuple[str, str]]:
    (labelled,) = json.loads((shared_data / "machine_temperature_windows.json").read_text()).values()
    return [(start[:19], end[:19]) for start, end in labelled]
