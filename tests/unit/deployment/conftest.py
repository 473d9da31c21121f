from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.deployment_solution import copy_solution


@pytest.fixture
def solution(tmp_path: Path) -> Path:
    """The project's own templates in a solution whose variables are all defined."""
    return copy_solution(tmp_path)
