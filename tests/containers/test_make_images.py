"""`make images` builds what a person finds under its name."""

from __future__ import annotations

import subprocess

import pytest

from tests.fixtures.builds import REPOSITORY
from tests.fixtures.container_engine import CLIENT, docker
from tests.fixtures.module_images import MODULES


@pytest.mark.slow
def test_make_images(base_image: str, module_images: dict[str, str]) -> None:
    """After the tests' own images, whose layers it finds."""
    command = ["make", "images", f"DOCKER={CLIENT}", f"BASE={base_image}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    try:
        for module in MODULES:
            user = docker("image", "inspect", "--format", "{{.Config.User}}", f"edgeclave/{module}")
            assert user == docker("image", "inspect", "--format", "{{.Config.User}}", module_images[module])
    finally:
        docker("image", "rm", *(f"edgeclave/{module}" for module in MODULES), check=False)
