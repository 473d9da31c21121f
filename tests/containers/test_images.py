"""What the images are: who runs in them, what is inside, how they start and stop."""

from __future__ import annotations

import pytest

from tests.fixtures.container_engine import docker
from tests.fixtures.module_images import MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_runs_as_a_fixed_user_without_rights(module_images: dict[str, str], module: str) -> None:
    assert docker("image", "inspect", "--format", "{{.Config.User}}", module_images[module]) == "10001:10001"
