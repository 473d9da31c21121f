"""`sim up`: the simulator with the modules of a deployment, from start to clean stop, as a sequence of events."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Self

import msgspec

from edgeclave.deployment import Deployment, generate
from edgeclave.errors import ConfigurationError
from edgeclave.simulator.log import LOGGER_NAME
from edgeclave.simulator.service_client import ApplyDeployment, carry_out
from edgeclave.simulator.simulator import Simulator
from edgeclave.simulator.state import unusable
from edgeclave.simulator.supervisor.agent import Agent, ModuleEvent
from edgeclave.simulator.supervisor.containers.engine import Engine
from edgeclave.simulator.supervisor.containers.host import ContainerHost
from edgeclave.simulator.supervisor.process import ProcessHost
from edgeclave.simulator.supervisor.program import ModuleHost
from edgeclave.simulator.supervisor.source_folders import SourceFolders

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


class Progress(msgspec.Struct, tag_field="event", tag="progress"):
    """Something that takes a while before a module can start."""

    module: str
    text: str


class Ready(msgspec.Struct, tag_field="event", tag="ready", rename="camel"):
    """All deployed modules have been started, each with what became of it told before."""

    modules: int


class Stopped(msgspec.Struct, tag_field="event", tag="stopped"):
    """Everything ended in order."""

    reason: str


Event = Started | Note | Applied | Progress | ModuleChanged | Ready | Stopped
Report = Callable[[Event], None]


async def up(
    template: Path,
    state: Path,
    seconds: float | None,
    report: Report,
    *,
    containers: bool = False,
    deploying: bool = True,
) -> None:
    """Runs until a signal or the end of the time, and stops in order.

    Args:
        deploying: whether to apply the template; otherwise it only says which images are built from which modules.

    Raises:
        ConfigurationError: the template, the state directory, the container engine, or what the hub refuses.
        EngineError: what the container engine cannot do.
    """
    with _Interruption() as interruption:
        try:
            await _run(template, state, seconds, report, interruption, containers=containers, deploying=deploying)
        except asyncio.CancelledError:
            if not interruption.reason:
                raise
    report(Stopped(interruption.reason))


async def _run(
    template: Path,
    state: Path,
    seconds: float | None,
    report: Report,
    interruption: _Interruption,
    *,
    containers: bool,
    deploying: bool,
) -> None:
    deployment = generate(template)  # before anything starts: most mistakes are here
    if deployment.is_layered:
        raise ConfigurationError(
            "layer-alone",
            "is a layered deployment, which needs a whole one below it",
            where=str(template),
            advice="start with a whole one; then `edgeclave deploy` this one to the simulator",
        )
    engine = await Engine.connect() if containers else None
    with _logging_to(state):
        async with Simulator.running(state) as simulator, AsyncExitStack() as stack:
            report(
                Started(
                    str(state),
                    simulator.settings.address,
                    simulator.settings.hub_host,
                    simulator.device_id,
                    simulator.ca_file,
                )
            )
            if deploying:
                await _deploy(deployment, simulator, state, report)
            folders = SourceFolders(template, deployment.folders)
            host = await _host(simulator, folders, engine, stack, report)
            agent = Agent(simulator.state, simulator.hub, host, lambda event: report(_module(event)))
            simulator.workload.program_of = agent.program_of
            simulator.control.supervisor = agent
            agent.start()
            telling = asyncio.create_task(_tell_when_ready(agent, report))
            try:
                await interruption.wait(seconds)
            finally:
                telling.cancel()
                await agent.stop()


async def _deploy(deployment: Deployment, simulator: Simulator, state: Path, report: Report) -> None:
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


async def _host(
    simulator: Simulator, folders: SourceFolders, engine: Engine | None, stack: AsyncExitStack, report: Report
) -> ModuleHost:
    if engine is None:
        return ProcessHost(simulator.state, folders)
    host = await stack.enter_async_context(
        ContainerHost.running(engine, simulator.state, folders, lambda module, text: report(Progress(module, text)))
    )
    if missing := await simulator.listen_as_edge_hub(host.gateway_address):
        report(Note(missing))
    return host


async def _tell_when_ready(agent: Agent, report: Report) -> None:
    await agent.reconciled()
    running = [each for each in agent.modules.values() if each.state.runtime_status == "running"]
    report(Ready(len(running)))


def _module(event: ModuleEvent) -> ModuleChanged:
    log = str(event.log_file) if event.log_file else ""
    return ModuleChanged(event.module_id, event.status, event.description, log)


class _Interruption:
    """SIGINT and SIGTERM end what runs in order; a second one is left to Python. Entered on the task to interrupt."""

    def __init__(self) -> None:
        self.reason = ""
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] | None = None
        self._task = asyncio.current_task()

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._end, number.name)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)

    async def wait(self, seconds: float | None) -> None:
        """Returns at a signal or at the end of the time. Before, a signal cancels the task, which is starting."""
        self._ended = self._loop.create_future()
        if seconds is not None:
            self._loop.call_later(seconds, self._end, f"{seconds:g} s are over")
        await self._ended

    def _end(self, reason: str) -> None:
        if self.reason:
            return
        self.reason = reason
        self.__exit__()
        if self._ended is not None:
            self._ended.set_result(None)
        elif self._task is not None:
            self._task.cancel()


@contextmanager
def _logging_to(state: Path) -> Iterator[None]:
    """The simulator's own log goes to `logs/simulator.log`, so that the terminal shows events only."""
    folder = state / "logs"
    path = folder / LOG_FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise unusable(state, error) from error
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
