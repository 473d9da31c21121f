"""Reconciles the running modules with $edgeAgent's desired properties and reports in its reported properties."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgeclave.errors import ConfigurationError, EdgeclaveError
from edgeclave.simulator.edge_hub import EDGE_AGENT, EdgeHub
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.log import logger
from edgeclave.simulator.state import SimulatorState, module_environment
from edgeclave.simulator.supervisor.agent_methods import AgentLink
from edgeclave.simulator.supervisor.process import NEVER, ModuleProcess, ModuleState
from edgeclave.simulator.supervisor.specification import ModuleSpecification, read_specifications
from edgeclave.simulator.twin_document import Section, difference
from edgeclave.simulator.twins import DesiredChange

SCHEMA_VERSION = "1.1"
MAX_DESCRIPTION_CHARACTERS = 500
_log = logger("supervisor")


@dataclass(frozen=True)
class ModuleEvent:
    """A change a person wants to see."""

    module_id: str
    status: str
    description: str
    log_file: Path | None


class Agent:
    """Runs what the deployment asks for. `folders` maps images to source folders."""

    def __init__(
        self,
        state: SimulatorState,
        hub: EdgeHub,
        folders: Mapping[str, Path],
        report: Callable[[ModuleEvent], None],
    ) -> None:
        self._state = state
        self._links = hub.links
        self._folders = folders
        self._event = report
        self._name = IdentityName(state.settings.device_id, EDGE_AGENT)
        self._processes: dict[str, ModuleProcess] = {}
        self._link = AgentLink(self._name, hub.methods, lambda: self._processes)
        self._not_started: dict[str, ModuleSpecification] = {}
        self._shown: dict[str, tuple[str, str]] = {}
        self._problem = ""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the deployed modules and follows changes of the deployment."""
        self._state.twins.on_desired.append(self._desired_changed)
        self._wake.set()
        self._task = asyncio.create_task(self._reconcile_for_ever())
        self._link.start(self._state)
        self._links.attach(self._name, self._link)

    async def stop(self) -> None:
        """Stops all modules, all at once."""
        self._links.detach(self._name, self._link)
        self._link.disconnect("edgeAgent stops")
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await asyncio.gather(*(process.stop() for process in self._processes.values()))

    @property
    def processes(self) -> Mapping[str, ModuleProcess]:
        return self._processes

    def process_of(self, module_id: str) -> int | None:
        """The process id of a module that runs, or None."""
        process = self._processes.get(module_id)
        return process.pid if process is not None and process.state.runtime_status == "running" else None

    def _desired_changed(self, change: DesiredChange) -> None:
        if change.name == self._name:
            self._wake.set()

    async def _reconcile_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._reconcile(read_specifications(self._state.twins.at_edge(self._name).desired, self._folders))
                self._problem = ""
            except ConfigurationError as error:
                self._problem = str(error)
                _log.error("the deployment cannot be used; the modules stay as they are", problem=str(error))
            except (EdgeclaveError, OSError) as error:
                self._problem = str(error)
                _log.error("cannot reconcile", problem=str(error))
            self._report()

    async def _reconcile(self, specifications: list[ModuleSpecification]) -> None:
        wanted = {each.module_id: each for each in specifications if each.wanted and each.runnable}
        self._not_started = {each.module_id: each for each in specifications if not (each.wanted and each.runnable)}
        for module_id, process in list(self._processes.items()):
            if wanted.get(module_id) != process.specification:
                await process.stop()
                del self._processes[module_id]
        for module_id, specification in wanted.items():
            if module_id not in self._processes:
                self._processes[module_id] = self._new_process(specification)
                self._processes[module_id].start()
                await self._processes[module_id].launched()  # in startupOrder, one after the other

    def _new_process(self, specification: ModuleSpecification) -> ModuleProcess:
        module_id, state = specification.module_id, self._state
        identity = state.module(module_id)
        environment = module_environment(
            state.directory,
            state.settings,
            module_id=module_id,
            generation_id=identity.generation_id,
            address=identity.address,
        )
        logs = state.directory / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        return ModuleProcess(
            specification,
            environment,
            data=Path(environment["EDGECLAVE_STATE"]),
            log_file=logs / f"{module_id}.log",
            changed=self._report,
        )

    def _report(self) -> None:
        """Writes what changed into the reported properties and tells the listener."""
        modules = {module_id: _reported(p.specification, p.state) for module_id, p in self._processes.items()}
        modules |= {module_id: _reported(s, _not_started(s)) for module_id, s in self._not_started.items()}
        twin = self._state.twins.at_edge(self._name)
        report: Section = {
            "schemaVersion": SCHEMA_VERSION,
            "lastDesiredVersion": twin.desired_version,
            "lastDesiredStatus": {"code": 400 if self._problem else 200, "description": self._problem[:500]},
            "runtime": {
                "type": "process",
                "platform": {"os": "linux", "architecture": platform.machine(), "version": "edgeclave simulator"},
            },
            "systemModules": {name: _emulated(name) for name in ("edgeAgent", "edgeHub")},
            "modules": modules,
        }
        patch = difference(twin.reported, report)
        try:
            if patch:
                self._state.twins.patch_reported(self._name, patch)
        except EdgeclaveError as error:
            _log.error("cannot report the modules' states", problem=str(error))
        for module_id, shown in modules.items():
            self._show(module_id, shown)

    def _show(self, module_id: str, shown: dict[str, Any]) -> None:
        now = (shown["runtimeStatus"], shown["statusDescription"])
        if self._shown.get(module_id) != now and now[0] != "unknown":
            self._shown[module_id] = now
            process = self._processes.get(module_id)
            self._event(ModuleEvent(module_id, *now, process.log_file if process else None))


def _not_started(specification: ModuleSpecification) -> ModuleState:
    if not specification.wanted:
        return ModuleState("stopped", "the deployment wants it stopped")
    return ModuleState("failed", f"not started: {specification.image} is not built from a module of this solution")


def _reported(specification: ModuleSpecification, state: ModuleState) -> dict[str, Any]:
    report: dict[str, Any] = msgspec.to_builtins(state)
    report["statusDescription"] = state.status_description[:MAX_DESCRIPTION_CHARACTERS]
    return {
        **report,
        "type": "docker",
        "version": specification.version,
        "status": "running" if specification.wanted else "stopped",
        "restartPolicy": specification.restart_policy,
        "startupOrder": specification.startup_order,
        "imagePullPolicy": "on-create",
        "settings": {"image": specification.image},
        "env": {variable: {"value": value} for variable, value in specification.environment.items()},
    }


def _emulated(name: str) -> dict[str, Any]:
    return {
        "type": "process",
        "status": "running",
        "runtimeStatus": "running",
        "statusDescription": f"{name} of the simulator, {os.getpid()}",
        "exitCode": 0,
        "restartPolicy": "always",
        "lastExitTimeUtc": NEVER,
    }
