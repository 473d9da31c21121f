"""The built and signed application in the real emulator, as a device runs it."""

import pytest

from edgeclave.develop.emulated_app import CallFailure, EmulatedApp


def test_storage_outlives_a_restart(trusted_app: EmulatedApp) -> None:
    trusted_app.call("observe", {"celsius": 21.5})
    trusted_app.restart()
    assert trusted_app.call("status") == {"count": 1, "highest": 21.5}


def test_results_are_sealed_and_opened_by_their_reader(trusted_app: EmulatedApp) -> None:
    trusted_app.call("observe", {"celsius": 21.5})
    (result,) = trusted_app.results
    assert (result.output, result.sequence, result.payload) == ("records", 1, {"celsius": 21.5})
    assert b"celsius" not in result.sealed


def test_a_bad_reading_is_refused_by_its_path(trusted_app: EmulatedApp) -> None:
    with pytest.raises(CallFailure, match="celsius: must be a number, not text"):
        trusted_app.call("observe", {"celsius": "warm"})
