"""pre-commit in a clone: what it lets pass, and what it stops."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.builds import REPOSITORY
from tests.fixtures.needs import missing

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """With the environment of this checkout, in which nothing is to be installed."""
    if not (REPOSITORY / ".venv" / ".development").exists():
        missing("this checkout has no .venv: run make install")
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(folder)], check=True)
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    for name in (".pre-commit-config.yaml", "Makefile", "pyproject.toml"):
        (folder / name).write_bytes((REPOSITORY / name).read_bytes())
    os.utime(folder / "pyproject.toml", (0, 0))
    return folder


@pytest.fixture
def run(clone: Path, tmp_path: Path) -> Run:
    def run_hooks(*files: str, skip: str = "") -> subprocess.CompletedProcess[str]:
        which = ["--files", *files] if files else ["--all-files"]
        return subprocess.run(
            [sys.executable, "-m", "pre_commit", "run", *which],
            cwd=clone,
            env={**os.environ, "PRE_COMMIT_HOME": str(tmp_path / "cache"), "SKIP": skip},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run_hooks


def test_the_whole_repository_passes(run: Run) -> None:
    done = run(skip="lint")  # which `make test` has just run
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Passed" in done.stdout
    assert "Failed" not in done.stdout


def test_a_file_that_lint_would_change_is_stopped(clone: Path, run: Run) -> None:
    (clone / "edgeclave" / "untidy.py").write_text("x = {  'a':1 }\n")
    subprocess.run(["git", "add", "--all"], cwd=clone, check=True)
    done = run("edgeclave/untidy.py")
    assert done.returncode == 1
    assert "untidy.py" in done.stdout


def test_a_workflow_that_github_would_refuse_is_stopped(clone: Path, run: Run) -> None:
    workflow = clone / ".github" / "workflows" / "broken.yml"
    workflow.parent.mkdir(parents=True, exist_ok=True)
    workflow.write_text("on: push\njobs:\n  test:\n    runs-on: ubuntu-latest\n    stepps: []\n")
    subprocess.run(["git", "add", "--all"], cwd=clone, check=True)
    done = run(".github/workflows/broken.yml")
    assert done.returncode == 1
    assert "stepps" in done.stdout
