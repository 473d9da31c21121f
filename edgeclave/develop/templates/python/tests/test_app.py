"""The application's own logic, as plain Python: fast, and with a debugger."""

from pathlib import Path

import pytest
from edgeclave_ta.testing import Failure, Harness

from app import app

MANIFEST = Path(__file__).parents[1] / "ta.toml"


@pytest.fixture
def tee() -> Harness:
    return Harness(app, manifest=MANIFEST)


def test_it_counts_and_keeps_the_highest(tee: Harness) -> None:
    tee.invoke("observe", {"celsius": 21.5})
    assert tee.invoke("observe", {"celsius": 19}) == {"count": 2, "highest": 21.5}
    assert tee.invoke("status") == {"count": 2, "highest": 21.5}


def test_only_records_leave(tee: Harness) -> None:
    for celsius in (20, 19, 22):
        tee.invoke("observe", {"celsius": celsius})
    assert [result.payload for result in tee.emitted] == [{"celsius": 20}, {"celsius": 22}]


@pytest.mark.parametrize("payload", [None, {}, {"celsius": "warm"}, {"celsius": -300}, {"celsius": 1, "unit": "K"}])
def test_bad_readings_change_nothing(tee: Harness, payload: object) -> None:
    with pytest.raises(Failure, match="400"):
        tee.invoke("observe", payload)
    assert tee.storage == {}
