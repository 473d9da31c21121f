"""A pytest fixture: the trusted application in the real emulator.

pytest finds it by itself where edgeclave is installed. It costs nothing until a test asks for it:

    def test_it_counts(trusted_app):
        assert trusted_app.call("add", {"value": 2}) == {"total": 2}
        assert trusted_app.results[0].payload == {"total": 2}
        trusted_app.restart()

Each test gets an instance with empty storage; the built application and its compiled code are used again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edgeclave.develop.emulated_app import EmulatedApp


@pytest.fixture
def trusted_app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmulatedApp]:
    """The trusted application of the nearest folder above the test that has a ta.toml; see EmulatedApp."""
    from edgeclave.develop.device import Device
    from edgeclave.develop.emulated_app import EmulatedApp
    from edgeclave.develop.project import Project
    from edgeclave.errors import EdgeclaveError
    from edgeclave.keys import key_folder

    folder = next((parent for parent in request.path.parents if (parent / "ta.toml").is_file()), None)
    if folder is None:
        pytest.fail(f"there is no ta.toml in a folder above {request.path}", pytrace=False)
    keys = key_folder().absolute()
    with contextlib.ExitStack() as stack:
        refused: EdgeclaveError | None = None
        try:
            package = _package(folder, keys)
            device = Device(Project.at(folder).run_folder, tmp_path / "state", keys)
            app = stack.enter_context(EmulatedApp(package, device))
        except EdgeclaveError as error:
            refused = error
        if refused is not None:  # outside of the handler: pytest would show both
            pytest.fail(str(refused), pytrace=False)
        yield app


@lru_cache
def _package(folder: Path, keys: Path) -> Path:
    """Once a run: sources do not change under the tests."""
    from edgeclave.develop.project import Project

    return Project.at(folder).development_package(keys, lambda _: None)
