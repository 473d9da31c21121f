"""Everything in this folder needs a Docker engine, and what it waits for may be built first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.base_images import base_image as make_base_image
from tests.fixtures.container_engine import start_engine
from tests.fixtures.module_images import BUILD_SECONDS
from tests.fixtures.module_images import module_images as build_module_images

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.containers)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(BUILD_SECONDS))


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine answers."""
    start_engine()


@pytest.fixture(scope="session")
def base_image() -> str:
    return make_base_image()


@pytest.fixture(scope="session")
def module_images() -> dict[str, str]:
    """The images for amd64, by the module's name."""
    return build_module_images()
