"""The files that editors and dev containers read: their form, and that they fit each other."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from edgeclave.cli.main import run
from tests.fixtures.builds import REPOSITORY
from tests.fixtures.visual_studio_code import read

VSCODE = REPOSITORY / ".vscode"
DEVCONTAINER = REPOSITORY / ".devcontainer" / "devcontainer.json"
LAUNCH = read(VSCODE / "launch.json")
TASKS = {task["label"]: task for task in read(VSCODE / "tasks.json")["tasks"]}
SETTINGS_OF_OTHERS = {"azure-iot-edge.EdgeHubConnectionString", "azure-iot-edge.EdgeModuleCACertificateFile"}
"""The Azure IoT Edge extension writes them when its simulator is set up."""


class _Build(msgspec.Struct, forbid_unknown_fields=True):
    dockerfile: str
    context: str = "."
    args: dict[str, str] = {}
    target: str = ""


class _VsCode(msgspec.Struct, forbid_unknown_fields=True):
    extensions: list[str] = []
    settings: dict[str, Any] = {}


class _Customizations(msgspec.Struct, forbid_unknown_fields=True):
    vscode: _VsCode


class DevContainer(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """The part of https://containers.dev/implementors/json_reference that is used here; its tool accepts any name."""

    name: str
    build: _Build
    remote_user: str
    post_create_command: str | list[str] | dict[str, str | list[str]]
    customizations: _Customizations
    init: bool = False


def test_the_dev_container_has_the_published_form() -> None:
    container = msgspec.convert(read(DEVCONTAINER), DevContainer)
    dockerfile = (DEVCONTAINER.parent / container.build.dockerfile).read_text()
    assert container.remote_user != "root"
    assert f"USER {container.remote_user}" in dockerfile
    assert container.post_create_command == "make install"
    assert dockerfile.splitlines()[1].startswith("ARG BASE=python:3.11")


@pytest.mark.parametrize("name", ["postCreateComand", "extensions"])
def test_a_name_that_is_not_known_is_refused(name: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=name):
        msgspec.convert({**read(DEVCONTAINER), name: "make install"}, DevContainer)


def test_the_folder_recommends_what_the_container_installs() -> None:
    extensions = msgspec.convert(read(DEVCONTAINER), DevContainer).customizations.vscode.extensions
    assert read(VSCODE / "extensions.json") == {"recommendations": extensions}
    assert extensions == sorted(extensions)
    assert all(re.fullmatch(r"[\w-]+\.[\w-]+", extension) for extension in extensions)


@pytest.mark.parametrize("configuration", LAUNCH["configurations"], ids=lambda each: each["name"])
def test_a_launch_configuration_names_what_is_there(configuration: dict[str, Any]) -> None:
    for when in ("preLaunchTask", "postDebugTask"):
        assert configuration.get(when) in {None, *TASKS}
    text = str(configuration)
    settings = set(re.findall(r"\$\{config:([^}]*)\}", text))
    assert settings <= SETTINGS_OF_OTHERS | read(VSCODE / "settings.json").keys()
    assert set(re.findall(r"\$\{([^}:]*)\}", text)) <= {"workspaceFolder", "file"}
    for path in re.findall(r"\$\{workspaceFolder\}/([^'\"]*)", text):
        if not path.startswith(".edgeclave/"):
            assert (REPOSITORY / path).exists(), path


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task["label"])
def test_a_task_runs_a_command_that_is_there(task: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert set(task.get("dependsOn", [])) <= TASKS.keys()
    match task["command"], task["args"]:
        case "make", [target]:
            assert f"\n{target}:" in (REPOSITORY / "Makefile").read_text()
        case "${workspaceFolder}/.venv/bin/edgeclave", arguments:
            assert run([*arguments, "--help"]) == 0
            assert "Example:" in capsys.readouterr().out
        case other:
            pytest.fail(f"{other} is not a command of this repository")


def test_what_the_simulator_says_of_a_broken_template_is_a_problem_in_the_editor(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "deployment.template.json"
    template.write_text('{\n  "modulesContent": {,\n}\n')
    assert run(["sim", "up", str(template), "--state", str(tmp_path / "state")]) == 1
    lines = capsys.readouterr().err.splitlines()
    first, second = TASKS["start the simulator"]["problemMatcher"]["pattern"]
    start = next(number for number, line in enumerate(lines) if re.search(first["regexp"], line))
    said, place = re.search(first["regexp"], lines[start]), re.search(second["regexp"], lines[start + 1])
    assert said is not None
    assert place is not None
    assert said[first["code"]] == "bad-json"
    assert place[second["file"]] == str(template)
    assert (place[second["line"]], place[second["column"]]) == ("2", "22")
