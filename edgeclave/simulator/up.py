"""`sim up`: the simulator with the modules of a deployment, from start to clean stop, as a sequence of events."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edgeclave.deployment import generate
from edgeclave.simulator.log import LOGGER_NAME
from edgeclave.simulator.service_client import ApplyDeployment, carry_out
from edgeclave.simulator.simulator import Simulator
from edgeclave.simulator.supervisor.agent import Agent, ModuleEvent

LOG_FILE = "simulator.log"


class Started(msgspec.Struct, tag_field="event", tag="started", rename="camel"):
    """The simulator listens."""

    state_directory: str
    address: str
    hub: str
    device_id: str
    ca_file: str


class Note(msgspec.Struct, tag_field="event", tag="note"):
    """Something legal in the deployment that is probably not meant."""

    text: str


class Applied(msgspec.Struct, tag_field="event", tag="applied"):
    """The hub accepted the deployment manifest."""

    manifest: str
    modules: list[str]


class ModuleChanged(msgspec.Struct, tag_field="event", tag="module"):
    """A module runs, failed, waits for its restart, or is not started."""

    module: str
    status: str
    description: str
    log: str


class Stopped(msgspec.Struct, tag_field="event", tag="stopped"):
    """Everything ended in order."""

    reason: str


Event = Started | Note | Applied | ModuleChanged | Stopped


async def up(template: Path, state: Path, seconds: float | None, report: Callable[[Event], None]) -> None:
    """Runs until a signal or the end of the time, and stops in order.

    Raises:
        ConfigurationError: the template, the state directory, or what the hub refuses.
    """
    deployment = generate(template)  # before anything starts: most mistakes are here
    with _logging_to(state):
        async with Simulator.running(state) as simulator:
            report(
                Started(
                    str(state),
                    simulator.settings.address,
                    simulator.settings.hub_host,
                    simulator.device_id,
                    simulator.ca_file,
                )
            )
            for note in deployment.notes:
                report(Note(note))
            manifest = deployment.write(state)
            content = deployment.manifest["modulesContent"]
            await carry_out(
                ApplyDeployment(simulator.device_id, content),
                connection_string=simulator.connection_string("service"),
                ca_file=simulator.ca_file,
            )
            modules = content["$edgeAgent"]["properties.desired"]["modules"]
            report(Applied(str(manifest), list(modules)))
            agent = Agent(simulator.state, simulator.hub, deployment.folders, lambda event: report(_module(event)))
            simulator.workload.process_of = agent.process_of
            agent.start()
            try:
                reason = await _end(seconds)
            finally:
                await agent.stop()
        report(Stopped(reason))


def _module(event: ModuleEvent) -> ModuleChanged:
    log = str(event.log_file) if event.log_file else ""
    return ModuleChanged(event.module_id, event.status, event.description, log)


async def _end(seconds: float | None) -> str:
    """Waits for SIGINT, SIGTERM or the end of the time; says which."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[str] = loop.create_future()

    def end(reason: str) -> None:
        if not ended.done():
            ended.set_result(reason)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number.name)
    if seconds is not None:
        loop.call_later(seconds, end, f"{seconds:g} s are over")
    try:
        return await ended
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextmanager
def _logging_to(state: Path) -> Iterator[None]:
    """The simulator's own log goes to `logs/simulator.log`, so that the terminal shows events only."""
    folder = state / "logs"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / LOG_FILE
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    handler = logging.FileHandler(path, encoding="utf-8")
    log = logging.getLogger(LOGGER_NAME)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = True
        handler.close()
