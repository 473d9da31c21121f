"""What a developer waits for: from a saved change of a C TA to the answer of its call, and a call of a Python TA again.

Whole commands, each with the interpreter's own start; the first round, which fills the caches, does not count.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.row import Row

ROUNDS = 5
TARGET_SECONDS = 2.0
CALL = ("ta", "run", ".", "observe", '{"celsius": 21.5}')


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        c, python = (_project(Path(folder), language) for language in ("c", "python"))
        loop = _median(lambda change: _change_build_run(c, change))
        call = _median(lambda _: _edgeclave(python, *CALL))
    return [
        Row("a change of the C template, `ta build && ta run`", "the limit", "s", loop, TARGET_SECONDS, 1.0),
        Row("`ta run` of the Python template, warm", "the limit", "s", call, TARGET_SECONDS, 1.0),
    ]


def _change_build_run(project: Path, change: int) -> None:
    with (project / "app.c").open("a") as file:
        file.write(f"int change_{change}(void) {{ return {change}; }}\n")
    _edgeclave(project, "ta", "build")
    _edgeclave(project, *CALL)


def _project(folder: Path, language: str) -> Path:
    _edgeclave(folder, "ta", "new", f"thermometer-{language}", "--lang", language)
    return folder / f"thermometer-{language}"


def _median(work: Callable[[int], None]) -> float:
    times = []
    for round_ in range(1 + ROUNDS):
        begin = time.perf_counter()
        work(round_)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def _edgeclave(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "edgeclave", *arguments], cwd=folder, check=True, capture_output=True)
