"""Every command of `edgeclave ta` says what it does, with an example."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from edgeclave.cli.ta import app

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"Example: edgeclave ta {command} " in shown.output


def test_all_commands_are_there() -> None:
    assert {"new", "build", "run", "test", "debug", "sign", "inspect", "keys"} <= set(COMMANDS)
