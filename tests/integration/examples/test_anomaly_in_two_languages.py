"""The anomaly detector in Python and in C, in the real emulator: what they seal is the same, value for value."""

from __future__ import annotations

import csv
import math
import random
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgeclave import keys as key_folder
from edgeclave.develop.emulated_app import CallFailure, EmulatedApp
from tests.fixtures import needs
from tests.fixtures.builds import REPOSITORY

Readings = list[list[Any]]
LANGUAGES = ("anomaly_python", "anomaly_c")


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], EmulatedApp]:
    """By language and name of the state to start from."""
    folder = tmp_path_factory.mktemp("examples")
    keys = folder / "keys"
    key_folder.create_key(keys, "reader-authority")
    for language in LANGUAGES:
        shutil.copytree(REPOSITORY / "examples" / language, folder / language)
    return lambda language, state: EmulatedApp.of_project(
        folder / language, keys, state=folder / f"{language}-{state}.state"
    )


@pytest.fixture(scope="module", params=LANGUAGES)
def app(apps: Callable[[str, str], EmulatedApp], request: pytest.FixtureRequest) -> Iterator[EmulatedApp]:
    with apps(request.param, "refusals") as running:
        yield running


def sealed(app: EmulatedApp, readings: Readings, batch: int, restart_after: int) -> list[tuple[str, Any]]:
    """Everything that leaves, with a restart on the way."""
    for number, begin in enumerate(range(0, len(readings), batch)):
        final = begin + batch >= len(readings)
        app.call("observe", {"series": "s", "readings": readings[begin : begin + batch], "final": final})
        if number == restart_after:
            app.restart()
    return [(result.output, result.payload) for result in app.results]


def machine_temperatures() -> Readings:
    with needs.shared("data/machine_temperature_system_failure.csv").open() as file:
        return [[row["timestamp"], float(row["value"])] for row in csv.DictReader(file)]


def rounded_days() -> Readings:
    """Numbers as times, whole and half degrees, spikes, a level shift longer than an anomaly may be."""
    noise = random.Random(7)
    values = [round(2 * (10 * math.sin(2 * math.pi * n / 288) + noise.gauss(0, 0.4))) / 2 for n in range(5_000)]
    for position in range(900, 2_400):
        values[position] += 40
    values[3_000] = -70
    return [[number / 2, value] for number, value in enumerate(values)]


def constant_then_tiny_steps() -> Readings:
    return [[number, 1e-7 if number < 200 else 1e-7 + 1e-9 * (number % 3)] for number in range(600)]


def constant_but_for_its_last_digit() -> Readings:
    return [[number, 35.2 if number < 200 else 35.2 + number % 7 // 6 / 10] for number in range(600)]


@pytest.mark.slow
@pytest.mark.timeout(300)  # builds and compiles the Python one where nothing is cached
@pytest.mark.parametrize(
    "series", [machine_temperatures, rounded_days, constant_then_tiny_steps, constant_but_for_its_last_digit]
)
def test_both_seal_the_same(apps: Callable[[str, str], EmulatedApp], series: Callable[[], Readings]) -> None:
    readings = series()
    results = {}
    for language in LANGUAGES:
        with apps(language, series.__name__) as app:
            results[language] = sealed(app, readings, batch=250, restart_after=4)
    python, c = (results[language] for language in LANGUAGES)
    assert len(python) >= len(readings) // 50
    assert c == python


@pytest.mark.slow
@pytest.mark.parametrize(
    ("payload", "status"),
    [
        pytest.param([], 400, id="no object"),
        pytest.param({"series": "", "readings": []}, 400, id="no name"),
        pytest.param({"series": "s", "readings": [], "finale": True}, 400, id="unknown field"),
        pytest.param({"series": "s", "readings": [], "final": 1}, 400, id="final is a number"),
        pytest.param({"series": "s", "readings": {}}, 400, id="readings are an object"),
        pytest.param({"series": "s", "readings": [[1, 2], [3]]}, 400, id="a reading without a value"),
        pytest.param({"series": "s", "readings": [[1, 2, 3]]}, 400, id="a reading of three"),
        pytest.param({"series": "s", "readings": [["", 2]]}, 400, id="an empty time"),
        pytest.param({"series": "s", "readings": [["t", "2"]]}, 400, id="a value that is text"),
        pytest.param({"series": "s", "readings": [["t", 1e301]]}, 400, id="a value too large"),
        pytest.param({"series": "s", "readings": [["t", 1]] * 2001}, 413, id="too many readings"),
    ],
)
def test_both_refuse_the_same_and_count_nothing_of_it(app: EmulatedApp, payload: Any, status: int) -> None:
    with pytest.raises(CallFailure) as refused:
        app.call("observe", payload)
    assert refused.value.status == status
    assert app.call("status") == {"series": {}}
