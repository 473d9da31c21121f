"""A runner without hub and link: starts one trusted application with a counter, makes one call, prints its answer.

    python killed_runner.py STATE PACKAGE DIGEST SIGNER RECIPIENTS CALL_ID PHASE POINT

It kills itself with SIGKILL at POINT of PHASE (`start` or `call`), if it gets there; `-` is nowhere.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from ta_runner.calls import CallQueue
from ta_runner.commits import Commits
from ta_runner.delivery import Delivery
from ta_runner.instance import Host, Instance
from ta_runner.metrics import RunnerMetrics
from ta_runner.packages import PackageCache
from ta_runner.store import RunnerStore

from edgeclave.edge.link import Call
from edgeclave.edge.outbox import Outbox
from edgeclave.edge.twins.trusted_apps import TrustedAppSettings
from edgeclave.platforms.emulated_counters import EmulatedCounters
from edgeclave.platforms.emulator import Emulator

phase = ""


def dying(function: Callable[..., Any], *, before: bool, when: tuple[str, str]) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **more: Any) -> Any:
        relevant = function.__name__ != "run" or b"increment" in arguments[1]
        if before and relevant and (phase, POINT) == when:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **more)
        if not before and relevant and (phase, POINT) == when:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    wrapped.__name__ = function.__name__
    return wrapped


STATE, PACKAGE, DIGEST, SIGNER, RECIPIENTS, CALL_ID, PHASE, POINT = sys.argv[1:]


async def main() -> None:
    global phase  # noqa: PLW0603
    state = Path(STATE)
    store = RunnerStore(state / "runner.sqlite")
    delivery = Delivery(store, Outbox(store.connection))
    metrics = RunnerMetrics(CollectorRegistry())
    emulator = Emulator(state / "emulator", state / "compiled", counter=True)
    host = Host({emulator.name: emulator}, PackageCache(state / "packages"), store, delivery, metrics, lambda: None)
    settings = TrustedAppSettings(
        package=PACKAGE, digest=DIGEST, signer=SIGNER, platform=emulator.name, recipients={"out": RECIPIENTS}
    )
    queue = CallQueue("probe", store, delivery, metrics)
    phase = "start"
    instance = await Instance.start("probe", host, settings, None, queue.commits)
    phase = "call"
    serving = asyncio.create_task(queue.serve(instance.enclave))
    call = Call(
        trusted_app="probe",
        method="count_and_emit",
        payload="null",
        call_id=CALL_ID,
        caller="iothub",
        deadline_ms=10_000,
        deliver="upstream",
    )
    reply = await queue.call(call)
    serving.cancel()
    await instance.enclave.kill()
    print(reply.payload)


Commits.keep = dying(Commits.keep, before=True, when=(PHASE, "before it is kept"))  # type: ignore[method-assign]
Commits.keep = dying(Commits.keep, before=False, when=(PHASE, "before the counter moves"))  # type: ignore[method-assign]
EmulatedCounters.run = dying(EmulatedCounters.run, before=False, when=(PHASE, "before it leaves"))  # type: ignore[method-assign]
for name in ("begin_instance", "advance"):
    inner = getattr(RunnerStore, name)
    setattr(RunnerStore, name, dying(inner, before=True, when=(PHASE, "before it is stored")))
asyncio.run(main())
