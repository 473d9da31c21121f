"""The trusted application as plain Python, with the guest SDK's harness."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from anomaly.readings import MAX_READINGS
from anomaly.shelf import MAX_FINISHED, MAX_SERIES
from anomaly.summary import WINDOW_READINGS
from edgeclave_ta import Failure
from edgeclave_ta.testing import Harness

from tests.unit.sample_analytics.conftest import TRUSTED_APP, fresh_app

MANIFEST = TRUSTED_APP / "ta.toml"


@pytest.fixture
def harness() -> Harness:
    return Harness(fresh_app().app, manifest=MANIFEST)


def readings(count: int, *, seed: int = 1, spike: int | None = None) -> list[list[Any]]:
    generator = random.Random(seed)
    taken: list[list[Any]] = [[f"t{n}", generator.gauss(20, 1)] for n in range(count)]
    if spike is not None:
        taken[spike][1] = 80.0
    return taken


def emitted(harness: Harness) -> list[tuple[str, Any]]:
    return [(one.output, one.payload) for one in harness.emitted]


def test_readings_are_accepted_and_counted(harness: Harness) -> None:
    assert harness.invoke("observe", {"series": "a", "readings": readings(7)}) == {"accepted": 7, "total": 7}
    assert harness.invoke("observe", {"series": "a", "readings": [[1.5, 2]]}) == {"accepted": 1, "total": 8}
    assert harness.invoke("observe", {"series": "b", "readings": [[0, 1]]}) == {"accepted": 1, "total": 1}


def test_an_anomaly_leaves_when_it_has_ended(harness: Harness) -> None:
    harness.invoke("observe", {"series": "a", "readings": readings(200, spike=150)})
    (anomaly,) = (payload for output, payload in emitted(harness) if output == "anomalies")
    assert anomaly["score"] > 5.5
    assert {name: anomaly[name] for name in ("series", "start", "end", "peak", "count", "direction")} == {
        "series": "a",
        "start": "t150",
        "end": "t150",
        "peak": 80.0,
        "count": 1,
        "direction": "up",
    }


def test_a_summary_counts_every_reading(harness: Harness) -> None:
    harness.invoke("observe", {"series": "a", "readings": [[f"t{n}", float(n)] for n in range(WINDOW_READINGS)]})
    assert emitted(harness) == [
        (
            "summary",
            {
                "series": "a",
                "count": WINDOW_READINGS,
                "first": "t0",
                "last": f"t{WINDOW_READINGS - 1}",
                "min": 0.0,
                "max": WINDOW_READINGS - 1.0,
                "mean": (WINDOW_READINGS - 1) / 2,
                "median": (WINDOW_READINGS - 1) / 2,
                "mad": pytest.approx(12.5),
                "anomalies": 0,
                "total": WINDOW_READINGS,
            },
        )
    ]


def test_final_tells_what_is_open_and_frees_the_name(harness: Harness) -> None:
    batch = {"series": "a", "readings": readings(61, spike=60), "final": True}
    assert harness.invoke("observe", batch) == {"accepted": 61, "total": 61}
    assert [output for output, _ in emitted(harness)] == ["summary", "anomalies", "summary"]
    assert harness.emitted[-1].payload["total"] == 61
    assert list(harness.storage) == ["index"]
    assert harness.invoke("status", None) == {
        "series": {"a": {"total": 61, "anomalies": 1, "inAnomaly": False, "finished": True}}
    }
    assert harness.invoke("observe", {"series": "a", "readings": [["t", 1]]}) == {"accepted": 1, "total": 1}


def test_an_empty_batch_changes_nothing(harness: Harness) -> None:
    assert harness.invoke("observe", {"series": "a", "readings": []}) == {"accepted": 0, "total": 0}
    assert harness.storage == {}


def batches(size: int) -> list[dict[str, Any]]:
    taken = readings(600, spike=301)
    taken[400:420] = [[at, 70.0] for at, _ in taken[400:420]]
    return [{"series": "a", "readings": taken[n : n + size], "final": n + size >= 600} for n in range(0, 600, size)]


def test_batch_sizes_do_not_matter() -> None:
    outcomes = []
    for size in (600, 100, 7):
        harness = Harness(fresh_app().app, manifest=MANIFEST)
        for batch in batches(size):
            harness.invoke("observe", batch)
        outcomes.append(emitted(harness))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert sum(output == "anomalies" for output, _ in outcomes[0]) == 2


def test_a_new_instance_goes_on_from_storage() -> None:
    steady = Harness(fresh_app().app, manifest=MANIFEST)
    storage: dict[str, str] = {}
    restarted: list[tuple[str, Any]] = []
    for batch in batches(50):
        steady.invoke("observe", batch)
        instance = Harness(fresh_app().app, manifest=MANIFEST)
        instance.storage.update(storage)
        instance.invoke("observe", batch)
        storage = dict(instance.storage)
        restarted += emitted(instance)
    assert restarted == emitted(steady)


def test_memory_that_is_ahead_of_storage_is_not_used() -> None:
    application = fresh_app().app
    harness = Harness(application, manifest=MANIFEST)
    first, second, *_ = batches(100)
    harness.invoke("observe", first)
    committed = dict(harness.storage)
    harness.invoke("observe", second)
    # As when the commit of that call could not be stored: the instance lives, its call is void.
    lost = Harness(application, manifest=MANIFEST)
    lost.storage.update(committed)
    assert lost.invoke("observe", second) == {"accepted": 100, "total": 200}
    assert lost.storage == harness.storage


def test_a_call_that_fails_leaves_nothing_in_memory(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.invoke("observe", {"series": "a", "readings": readings(45)})
    before = dict(harness.storage)
    with monkeypatch.context() as patch:
        patch.setattr("anomaly.summary.Window.summary", lambda self: math.nan)
        with pytest.raises(Failure) as failure:
            harness.invoke("observe", {"series": "a", "readings": readings(10)})
    assert failure.value.status == 500
    assert harness.storage == before
    assert harness.invoke("observe", {"series": "a", "readings": readings(3)}) == {"accepted": 3, "total": 48}


@pytest.mark.parametrize(
    ("payload", "status", "says"),
    [
        pytest.param("[]", 400, "must be an object", id="a list"),
        pytest.param('{"readings": []}', 400, "series must be a name", id="no series"),
        pytest.param('{"series": "", "readings": []}', 400, "series must be a name", id="empty name"),
        pytest.param('{"series": "a\\u0000", "readings": []}', 400, "printable", id="name with a control character"),
        pytest.param('{"series": "\\ud800", "readings": []}', 400, "Unicode text", id="name that is not Unicode"),
        pytest.param(f'{{"series": "{"a" * 129}", "readings": []}}', 400, "128", id="name too long"),
        pytest.param('{"series": "a"}', 400, "readings must be a list", id="no readings"),
        pytest.param('{"series": "a", "readings": [], "final": 1}', 400, "final must be", id="final is a number"),
        pytest.param('{"series": "a", "readings": [], "last": true}', 400, "'last'", id="unknown field"),
        pytest.param('{"series": "a", "readings": [["t", 1], ["t"]]}', 400, "readings[1]", id="half a reading"),
        pytest.param('{"series": "a", "readings": [{"t": 1}]}', 400, "readings[0]", id="reading is an object"),
        pytest.param('{"series": "a", "readings": [["t", NaN]]}', 400, "not JSON", id="not a number"),
        pytest.param('{"series": "a", "readings": [["t", -Infinity]]}', 400, "not JSON", id="infinite"),
        pytest.param('{"series": "a", "readings": [["t", 1e999]]}', 400, "a float can hold", id="overflows"),
        pytest.param('{"series": "a", "readings": [["t", 1e301]]}', 400, "1e+300", id="beyond the limit"),
        pytest.param(f'{{"series": "a", "readings": [["t", {"9" * 400}]]}}', 400, "1e+300", id="huge integer"),
        pytest.param('{"series": "a", "readings": [["t", null]]}', 400, "finite number", id="null"),
        pytest.param('{"series": "a", "readings": [["t", "21"]]}', 400, "finite number", id="text for a value"),
        pytest.param('{"series": "a", "readings": [["t", true]]}', 400, "finite number", id="true for a value"),
        pytest.param('{"series": "a", "readings": [["", 1]]}', 400, "1 to 64", id="empty time"),
        pytest.param('{"series": "a", "readings": [[null, 1]]}', 400, "a time must be", id="no time"),
        pytest.param('{"series": "a", "readings": [[NaN, 1]]}', 400, "not JSON", id="time is not a number"),
        pytest.param("{", 400, "not JSON", id="not JSON"),
    ],
)
def test_what_is_refused_and_leaves_no_trace(harness: Harness, payload: str, status: int, says: str) -> None:
    with pytest.raises(Failure) as failure:
        harness.invoke_text("observe", payload)
    assert failure.value.status == status
    assert says in failure.value.message
    assert (harness.storage, harness.emitted) == ({}, [])


def test_too_many_readings_in_one_call(harness: Harness) -> None:
    with pytest.raises(Failure) as failure:
        harness.invoke("observe", {"series": "a", "readings": [[0, 0]] * (MAX_READINGS + 1)})
    assert failure.value.status == 413


def test_series_are_bounded_in_number(harness: Harness) -> None:
    for number in range(MAX_SERIES):
        harness.invoke("observe", {"series": f"s{number}", "readings": [[0, 0]]})
    with pytest.raises(Failure, match="series are going on") as failure:
        harness.invoke("observe", {"series": "one more", "readings": [[0, 0]]})
    assert failure.value.status == 409
    harness.invoke("observe", {"series": "s3", "readings": [], "final": True})
    for number in range(2 * MAX_FINISHED):
        harness.invoke("observe", {"series": f"short {number}", "readings": [[0, 0]], "final": True})
    shown = harness.invoke("status", None)["series"]
    assert len(shown) == MAX_SERIES - 1 + MAX_FINISHED
    assert sum(len(text) for text in harness.storage.values()) < 1 << 19


def test_storage_from_another_form_is_not_touched(harness: Harness) -> None:
    harness.storage["index"] = json.dumps({"format": 99, "series": {}})
    with pytest.raises(Failure, match="form 99"):
        harness.invoke("observe", {"series": "a", "readings": [[0, 0]]})


def test_the_manifest_grants_no_more_than_is_used() -> None:
    text = (Path(TRUSTED_APP) / "ta.toml").read_text()
    assert 'services = ["storage", "emit", "log"]' in text
