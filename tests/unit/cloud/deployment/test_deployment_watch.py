"""When watching ends, and what is then called healthy. The plan says in turn what it is told to, then the last."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from edgeclave.cloud.deployment.states import Level, State
from edgeclave.cloud.deployment.watch import Look, Pace, watch
from edgeclave.errors import EdgeclaveError

PACE = Pace(timeout_seconds=0.3, steady_seconds=0.1, look_every_seconds=0.01)
Told = tuple[Level, str]
RUNS: Told = (Level.OK, "running")
STARTS: Told = (Level.WAITING, "starting")
BACKOFF: Told = (Level.WAITING, "ends again and again")
REFUSED: Told = (Level.FAILED, "refused")


class Scripted:
    """Devices with one part each."""

    def __init__(self, **devices: list[Told]) -> None:
        self._devices = devices

    def targets(self) -> list[str]:
        return list(self._devices)

    def states(self, device_id: str) -> list[State]:
        told = self._devices[device_id]
        level, what = told.pop(0) if len(told) > 1 else told[0]
        return [State(device_id, "m", level, what)]

    def counts(self) -> Mapping[str, int]:
        return {"targetedCount": len(self._devices)}


@pytest.mark.parametrize(
    ("devices", "healthy", "settled", "wrong"),
    [
        pytest.param({"a": [RUNS]}, True, True, {}, id="runs"),
        pytest.param({"a": [STARTS, RUNS]}, True, True, {}, id="comes to run"),
        pytest.param({"a": [RUNS], "b": [STARTS, RUNS]}, True, True, {}, id="both come to run"),
        pytest.param({"a": [REFUSED]}, False, True, {"a": "refused"}, id="refused"),
        pytest.param({"a": [RUNS], "b": [REFUSED]}, False, True, {"b": "refused"}, id="one refused"),
        pytest.param({"a": [STARTS]}, False, False, {"a": "starting"}, id="never comes to run"),
        pytest.param({"a": [REFUSED, RUNS]}, True, True, {}, id="refused before it heard of the change"),
        pytest.param(
            {"a": [BACKOFF, RUNS] * 40}, False, False, {"a": "ends again and again"}, id="starts and ends again"
        ),
        pytest.param({}, True, True, {}, id="no devices"),
    ],
)
def test_how_it_ends(devices: dict[str, list[Told]], healthy: bool, settled: bool, wrong: dict[str, str]) -> None:
    looks: list[Look] = []
    ended = watch(Scripted(**devices), looks.append, PACE)
    assert (ended.healthy, ended.settled) == (healthy, settled)
    assert {state.device: state.what for state in ended.look.states if state.level is not Level.OK} == wrong
    assert ended.look.healthy_devices == len(devices) - len(wrong)
    assert looks


def test_what_came_right_at_the_last_moment_may_show_that_it_stays() -> None:
    ended = watch(Scripted(a=[RUNS]), lambda _: None, Pace(0, steady_seconds=0.1, look_every_seconds=0.01))
    assert ended.healthy


class Interrupted(Scripted):
    """The hub is away for some looks."""

    def __init__(self, away: int, code: str) -> None:
        super().__init__(a=[RUNS])
        self._away, self._code = away, code

    def targets(self) -> list[str]:
        self._away -= 1
        if self._away >= 0:
            raise EdgeclaveError(self._code, "the hub cannot be reached")
        return super().targets()


def test_a_moment_without_the_hub_passes() -> None:
    assert watch(Interrupted(3, "hub-unreachable"), lambda _: None, PACE).healthy


@pytest.mark.parametrize(("away", "code"), [(1_000_000, "hub-unreachable"), (1, "hub-unauthorized")])
def test_a_hub_that_stays_away_or_refuses_is_an_error(away: int, code: str) -> None:
    with pytest.raises(EdgeclaveError) as refused:
        watch(Interrupted(away, code), lambda _: None, PACE)
    assert refused.value.code == code
