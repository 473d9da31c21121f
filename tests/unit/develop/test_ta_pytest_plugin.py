"""The fixture `trusted_app` where it cannot be had: a reason, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TEST = "def test_it(trusted_app):\n    pass\n"


def run_pytest(folder: Path) -> str:
    (folder / "test_it.py").write_text(TEST)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-c",
            "/dev/null",
            "--rootdir=.",
            "-p",
            "no:cacheprovider",
            "test_it.py",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    return done.stdout


def test_outside_a_project(tmp_path: Path) -> None:
    assert "there is no ta.toml in a folder above" in run_pytest(tmp_path)


@pytest.mark.parametrize(
    ("manifest", "code"),
    [
        pytest.param("name = [", "bad-manifest", id="a broken manifest"),
        pytest.param('name = "meter"', "no-source", id="no sources"),
    ],
)
def test_in_a_project_that_cannot_be_built(tmp_path: Path, manifest: str, code: str) -> None:
    (tmp_path / "ta.toml").write_text(manifest)
    assert f"[{code}]" in run_pytest(tmp_path)
