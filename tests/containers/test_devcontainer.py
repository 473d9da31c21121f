"""The dev container builds, starts, installs the project as an ordinary user, and the main job runs in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.dev_container import dev_container

MINUTES = 15


@pytest.mark.slow
@pytest.mark.timeout(MINUTES * 60)
def test_a_developer_finds_everything_in_the_dev_container(tmp_path: Path) -> None:
    with dev_container(tmp_path) as container:
        container.up()
        assert container.execute("id", "-un").split() == ["vscode"]
        for tool in ("git", "make", "gdb", "gcc", "edgeclave", "debugpy"):
            container.execute("env", "PATH=.venv/bin:/usr/bin:/bin", "which", tool)

        assert "Done: " in container.execute("make", "demo")

        stopped = container.execute(
            *("env", "PATH=.venv/bin:/usr/bin:/bin", ".vscode/gdb.sh", "--batch"),
            *("-ex", "set breakpoint pending on", "-ex", "break app.c:observe", "-ex", "run", "-ex", "backtrace 1"),
        )
        assert "observe (payload=..., reply=...) at ./app.c:" in stopped
