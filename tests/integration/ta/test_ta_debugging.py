"""The launch configurations of a new project, followed as an editor follows them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgeclave.cli.main import run
from tests.fixtures.debug_adapter import Editor


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.slow
def test_a_breakpoint_in_the_application_under_its_unit_tests(tmp_path: Path) -> None:
    project = tmp_path / "meter"
    assert run(["ta", "new", "meter", "--dir", str(project)]) == 0
    (configuration, *_) = json.loads((project / ".vscode" / "launch.json").read_text())["configurations"]
    assert (configuration["type"], configuration["request"]) == ("debugpy", "launch")
    source = project / "app.py"
    line = 1 + next(n for n, text in enumerate(source.read_text().splitlines()) if "tee.put(" in text)
    port = free_port()
    command = [sys.executable, "-m", "debugpy", "--listen", f"127.0.0.1:{port}", "--wait-for-client", "-m"]
    with subprocess.Popen(
        [*command, configuration["module"], *configuration["args"]],
        cwd=configuration["cwd"].replace("${workspaceFolder}", str(project)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as program:
        try:
            editor = Editor(port)
            frame = editor.stop_at(source, line, {"justMyCode": configuration["justMyCode"]})
            assert (frame["name"], frame["line"]) == ("observe", line)
            assert Path(frame["source"]["path"]) == source
            after = editor.ask("evaluate", expression="after.count", frameId=frame["id"])
            assert after["result"] == "1"
            editor.close()
        finally:
            program.kill()
