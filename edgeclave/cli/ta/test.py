"""`edgeclave ta test`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import typer

from edgeclave.cli.ta.common import HERE, Folder, Keys, progress
from edgeclave.develop.project import Project
from edgeclave.errors import ConfigurationError
from edgeclave.keys import DEFAULT_FOLDER, FOLDER_VARIABLE


def run_tests(context: typer.Context, folder: Folder = HERE, keys: Keys = DEFAULT_FOLDER) -> None:
    """Run a project's tests with pytest: its functions as plain Python, and the whole of it in the emulator.

    The fixture `trusted_app` is the application in the real emulator. What follows DIR goes to pytest, which
    runs in DIR. Exit code: that of pytest.

    Example: edgeclave ta test thermometer -k storage -v
    """
    arguments = context.args
    if folder.name.startswith("-"):  # an option of pytest's, in the project itself
        folder, arguments = HERE, [str(folder), *arguments]
    if importlib.util.find_spec("pytest") is None:
        raise ConfigurationError(
            "missing-extra", "pytest is not installed", advice="install `edgeclave[test]`, or `pip install pytest`"
        )
    with progress("building") as tell:
        Project.at(folder).development_package(keys.absolute(), tell)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--rootdir=.", f"--config-file={_configuration(folder)}", *arguments],
        cwd=folder,
        env={**os.environ, FOLDER_VARIABLE: str(keys.absolute()), "PYTHONWARNINGS": _warnings()},
        check=False,
    )
    raise typer.Exit(done.returncode)


def _warnings() -> str:
    """Where pytest-asyncio is installed too, it warns each project that has not set what it needs for async tests."""
    return ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:The configuration option"]))


def _configuration(folder: Path) -> str:
    """Without this pytest would take the configuration of a repository around the project."""
    return "pyproject.toml" if (folder / "pyproject.toml").is_file() else os.devnull
