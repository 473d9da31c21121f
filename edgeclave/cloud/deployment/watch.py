"""Looks at the devices of a deployment until it is settled, or the time is up.

Settled is what has been the same for a while and is not expected to change by itself: everything runs, or something
has failed for good. A module that starts and ends again is never settled, and at the end of the time never called
healthy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from edgeclave.cloud.deployment.states import Level, State
from edgeclave.errors import EdgeclaveError

_PASSING = ("hub-unreachable", "hub-throttling")
"""A moment without the hub says nothing about the devices."""


@dataclass(frozen=True)
class Pace:
    """How long and how often to look.

    One query for the targeted devices is made each time; IoT Hub allows 20 a minute and unit (S1).
    """

    timeout_seconds: float
    steady_seconds: float = 10.0
    look_every_seconds: float = 3.0


class Plan(Protocol):
    """What is watched."""

    def targets(self) -> list[str]: ...
    def states(self, device_id: str) -> list[State]: ...
    def counts(self) -> Mapping[str, int]: ...


class Look(msgspec.Struct, frozen=True):
    """One look at everything."""

    devices: tuple[str, ...]
    states: tuple[State, ...]
    counts: dict[str, int]

    @property
    def waiting(self) -> bool:
        return any(state.level is Level.WAITING for state in self.states)

    @property
    def healthy_devices(self) -> int:
        return len(set(self.devices) - {state.device for state in self.states if state.level is not Level.OK})


class Ended(msgspec.Struct, frozen=True):
    """The last look. Healthy is only what was settled and all right."""

    look: Look
    settled: bool

    @property
    def healthy(self) -> bool:
        return self.settled and self.look.healthy_devices == len(self.look.devices)


def watch(plan: Plan, show: Callable[[Look], None], pace: Pace) -> Ended:
    """Calls `show` after every look. Raises what the hub's side raises, unless it passes in time."""
    deadline = time.monotonic() + pace.timeout_seconds
    same_since, last = time.monotonic(), Look((), (), {})
    relapses: dict[tuple[str, str], State] = {}
    while True:
        begin = time.monotonic()
        try:
            now = _look(plan)
        except EdgeclaveError as error:
            if error.code not in _PASSING or begin >= deadline:
                raise
            time.sleep(pace.look_every_seconds)
            continue
        if now.states != last.states:
            same_since = begin
        well = {(state.device, state.part) for state in last.states if state.level is Level.OK}
        ill = [state for state in now.states if state.level is not Level.OK]
        relapses |= {(state.device, state.part): state for state in ill if (state.device, state.part) in well}
        last = now
        show(now)
        steady = begin - same_since >= pace.steady_seconds
        if not now.devices or (steady and not now.waiting):
            return Ended(now, settled=True)
        # What just came right gets the time to show that it stays so.
        if begin >= (deadline if now.waiting else deadline + 2 * pace.steady_seconds):
            states = tuple(_or_relapse(state, relapses) for state in now.states)
            return Ended(Look(now.devices, states, now.counts), settled=False)
        time.sleep(max(0.0, pace.look_every_seconds - (time.monotonic() - begin)))


def _look(plan: Plan) -> Look:
    devices = tuple(plan.targets())
    states = tuple(state for device in devices for state in plan.states(device))
    return Look(devices, states, dict(plan.counts()))


def _or_relapse(state: State, relapses: Mapping[tuple[str, str], State]) -> State:
    """What runs at this moment but has fallen back before is said to be what it fell back to."""
    before = relapses.get((state.device, state.part))
    return before if state.level is Level.OK and before is not None else state
