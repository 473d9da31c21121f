"""Every command of `edgeclave ta` says what it does, with an example."""

from __future__ import annotations

import inspect
import shlex
from pathlib import Path

import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner

from edgeclave.cli.main import run
from edgeclave.cli.ta import app

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: edgeclave ta {command} " in shown.output


@pytest.mark.parametrize("command", COMMANDS)
def test_what_stands_in_brackets_is_shown(command: str) -> None:
    """Unescaped, `[developer]` would be a style of the terminal."""
    texts = [str(getattr(each, "help", None) or "") for each in typer.main.get_command(app).commands[command].params]  # type: ignore[attr-defined]
    for text in texts:
        assert Text.from_markup(text).plain == text.replace("\\[", "[")


def test_all_commands_are_there() -> None:
    assert {"new", "build", "run", "test", "debug", "sign", "inspect", "keys"} <= set(COMMANDS)


def test_the_examples_work_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`new`, then `run`, is what `new` itself prints; `test` and `debug` name what is in every new project."""
    monkeypatch.chdir(tmp_path)
    examples = {command: example_of(command) for command in ("new", "run", "test", "debug")}
    assert run(examples["new"][1:]) == 0
    printed = [shlex.split(line) for line in capsys.readouterr().out.splitlines()[1:]]
    assert examples["run"] in printed
    tests = "".join(path.read_text() for path in Path("thermometer/tests").glob("*.py"))
    words = examples["test"]
    assert f"_{words[words.index('-k') + 1]}_" in tests
    debug = examples["debug"]
    assert f"def {debug[debug.index('--method') + 1]}(" in Path("thermometer/app.py").read_text()


def example_of(command: str) -> list[str]:
    help_text = inspect.cleandoc(typer.main.get_command(app).commands[command].help)  # type: ignore[attr-defined]
    return shlex.split(help_text.partition("Example: ")[2].partition("\n\n")[0])
