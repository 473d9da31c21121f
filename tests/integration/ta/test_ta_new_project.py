"""A new project from nothing: built, called, tested, as its developer does it. How fast that is stands in the bench."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.needs import tool

BUILDING = {"python": "importing the application", "c": "compiling C"}
CALL = ["ta", "run", "thermometer", "observe"]


def edgeclave(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "EDGECLAVE"))}
    return subprocess.run(
        [sys.executable, "-m", "edgeclave", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module", params=["python", "c"])
def workspace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    assert edgeclave(folder, "ta", "new", "thermometer", "--lang", request.param).returncode == 0
    first = edgeclave(folder, *CALL, '{"celsius": 21.5}')
    assert first.returncode == 0, first.stderr
    assert BUILDING[request.param] in first.stderr
    return folder


def source(workspace: Path) -> Path:
    (path,) = (workspace / "thermometer").glob("app.*")
    return path


@pytest.mark.slow
def test_the_second_run_builds_and_compiles_nothing(workspace: Path) -> None:
    again = edgeclave(workspace, *CALL, '{"celsius": 19}', "--json")
    assert json.loads(again.stdout)["reply"]["highest"] == 21.5
    assert not any(said in again.stderr for said in BUILDING.values())
    assert "up to date" in edgeclave(workspace, "ta", "build", "thermometer").stdout


@pytest.mark.slow
def test_its_tests_pass_in_the_emulator_too(workspace: Path) -> None:
    done = edgeclave(workspace, "ta", "test", "thermometer", "-q", "-k", "storage or records or results")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert "1 passed" not in done.stdout
    assert done.stderr == "", "no warning about what the project does not use"


@pytest.mark.slow
def test_in_the_project_itself_options_go_to_pytest_without_naming_it(workspace: Path) -> None:
    done = edgeclave(
        workspace / "thermometer", "ta", "test", "-q", "--collect-only", "--keys", str(workspace / ".edgeclave/keys")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests/test_in_the_emulator.py" in done.stdout


@pytest.mark.slow
def test_a_failing_test_fails_the_command_with_the_path_of_what_is_wrong(workspace: Path) -> None:
    test = workspace / "thermometer" / "tests" / "test_wrong.py"
    test.write_text('def test_it(trusted_app):\n    trusted_app.call("observe", {"celsius": []})\n')
    done = edgeclave(workspace, "ta", "test", "thermometer", "-q", "tests/test_wrong.py")
    test.unlink()
    assert done.returncode == 1
    assert "failed with 400: celsius: must be a number" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "built_again"),
    [
        pytest.param(lambda app: (app.parent / "README.md").write_text("x"), False, id="a text nobody runs"),
        pytest.param(lambda app: (app.parent / "tests" / "test_more.py").write_text(""), False, id="a test"),
        pytest.param(lambda app: app.touch(), False, id="the same code, written again"),
        pytest.param(lambda app: app.with_stem("extra").write_text(""), True, id="a new source"),
        pytest.param(lambda app: (app.parent / "build" / "thermometer.wasm").touch(), True, id="somebody's Wasm"),
    ],
)
def test_what_is_built_again(workspace: Path, change: Callable[[Path], object], built_again: bool) -> None:
    change(source(workspace))
    done = edgeclave(workspace, "ta", "build", "thermometer")
    assert done.returncode == 0, done.stderr
    assert ("up to date" not in done.stdout) == built_again


@pytest.mark.slow
def test_the_task_that_debugs_the_template_in_c_stops_in_its_source(tmp_path: Path) -> None:
    tool("gdb", "gdb")
    assert edgeclave(tmp_path, "ta", "new", "meter", "--lang", "c").returncode == 0
    tasks = json.loads((tmp_path / "meter" / ".vscode" / "tasks.json").read_text())["tasks"]
    (task,) = [task for task in tasks if "GDB" in task["label"]]
    (tmp_path / "commands").write_text("break app.c:observe\nrun\nnext\nnext\nprint celsius\ncontinue\n")
    ended = edgeclave(tmp_path / "meter", *task["args"], "--batch-commands", str(tmp_path / "commands"))
    assert task["command"] == "edgeclave"
    assert "$1 = 21.5" in ended.stdout, ended.stdout + ended.stderr
    assert '{"count":1,"highest":21.5}' in ended.stdout


@pytest.mark.slow
def test_the_launch_configuration_in_c_stops_in_its_source(tmp_path: Path) -> None:
    """Spoken to as VS Code's C++ extension speaks to gdb, in gdb's machine interface."""
    tool("gdb", "gdb")
    assert edgeclave(tmp_path, "ta", "new", "meter", "--lang", "c").returncode == 0
    configurations = json.loads((tmp_path / "meter" / ".vscode" / "launch.json").read_text())["configurations"]
    (launch,) = [each for each in configurations if each["type"] == "cppdbg"]
    debugger = launch["miDebuggerPath"].replace("${workspaceFolder}", str(tmp_path / "meter"))
    commands = (
        "-gdb-set breakpoint pending on",
        "-break-insert -f app.c:observe",
        f"-{launch['launchCompleteCommand']}",
    )
    with subprocess.Popen(
        [debugger, "--interpreter=mi"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as gdb:
        assert gdb.stdin is not None
        assert gdb.stdout is not None
        gdb.stdin.write("\n".join(commands) + "\n")
        gdb.stdin.flush()
        stopped = next(line for line in gdb.stdout if line.startswith("*stopped"))
        gdb.stdin.write("-gdb-exit\n")
        gdb.stdin.close()
        gdb.stdout.read()
    assert 'func="observe"' in stopped
    assert 'file="./app.c"' in stopped
