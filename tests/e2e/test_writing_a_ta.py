"""docs/writing-a-ta.md, done literally by somebody who has a checkout and nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.suite import ROOT
from tests.fixtures.console import Command, File, Reader, missing_line, read_steps
from tests.fixtures.docker_registry import DockerRegistry

PAGE = ROOT / "docs" / "writing-a-ta.md"
REGISTRY = "localhost:5000"
TEN_MINUTES = 600


@pytest.mark.e2e
@pytest.mark.timeout(TEN_MINUTES)
def test_ten_minutes_from_nothing_to_a_result_that_its_reader_opened(tmp_path: Path) -> None:
    registry = DockerRegistry(tmp_path / "registry")
    page, folder = tmp_path / "page.md", tmp_path / "reader"
    page.write_text(PAGE.read_text().replace(REGISTRY, registry.host))
    folder.mkdir()
    (folder / "modules").symlink_to(ROOT / "modules")
    begin = time.monotonic()
    with registry.running(), Reader(folder, {"DOCKER_CONFIG": str(tmp_path)}) as reader:
        commands = reader.follow(page)
    assert commands >= 16
    assert time.monotonic() - begin < TEN_MINUTES / 2, "a person also reads"
    assert f"THERMOMETER_PACKAGE={registry.host}/plant/thermometer" in (folder / ".env").read_text()
    assert (folder / "pulled.ta").read_bytes() == (folder / "thermometer" / "build" / "thermometer.ta").read_bytes()


def test_the_page_leaves_no_command_out() -> None:
    text = PAGE.read_text()
    assert text.count("\n$ ") == sum(isinstance(step, Command) for step in read_steps(PAGE))
    assert [step.name for step in read_steps(PAGE) if isinstance(step, File)] == [
        "thermometer.template.json",
        "invoke.py",
    ]


@pytest.mark.parametrize(
    ("prints", "output", "missing"),
    [
        pytest.param(["a", "c"], "a\nb\nc", None, id="lines between do not matter"),
        pytest.param(["c", "a"], "a\nb\nc", "a", id="their order does"),
        pytest.param(["a..."], "abc", None, id="the rest of a line"),
        pytest.param(["...c"], "abd", "...c", id="the end of a line"),
        pytest.param(["running  x"], "running    x", None, id="columns"),
        pytest.param(["...", "z"], "a", "z", id="a line that is not there"),
    ],
)
def test_how_output_is_compared(prints: list[str], output: str, missing: str | None) -> None:
    assert missing_line(prints, output) == missing
