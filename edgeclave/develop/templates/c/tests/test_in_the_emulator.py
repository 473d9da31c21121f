"""The built and signed application in the real emulator, as a device runs it."""

import pytest

from edgeclave.develop.emulated_app import CallFailure, EmulatedApp


def test_it_counts_and_keeps_the_highest(trusted_app: EmulatedApp) -> None:
    trusted_app.call("observe", {"celsius": 21.5})
    assert trusted_app.call("observe", {"celsius": 19}) == {"count": 2, "highest": 21.5}


def test_storage_outlives_a_restart(trusted_app: EmulatedApp) -> None:
    trusted_app.call("observe", {"celsius": 21.5})
    trusted_app.restart()
    assert trusted_app.call("status") == {"count": 1, "highest": 21.5}


def test_only_records_leave_and_they_are_sealed(trusted_app: EmulatedApp) -> None:
    for celsius in (20, 19, 22):
        trusted_app.call("observe", {"celsius": celsius})
    assert [result.payload for result in trusted_app.results] == [{"celsius": 20}, {"celsius": 22}]
    assert b"celsius" not in trusted_app.results[0].sealed


@pytest.mark.parametrize("payload", [None, {}, {"celsius": "warm"}, {"celsius": -300}])
def test_bad_readings_change_nothing(trusted_app: EmulatedApp, payload: object) -> None:
    with pytest.raises(CallFailure, match="400"):
        trusted_app.call("observe", payload)
    with pytest.raises(CallFailure, match="404"):
        trusted_app.call("status")
