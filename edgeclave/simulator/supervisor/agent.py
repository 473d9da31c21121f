"""Reconciles the running modules with $edgeAgent's desired properties and reports in its reported properties."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from edgeclave.errors import ConfigurationError, EdgeclaveError
from edgeclave.simulator.edge_hub import EDGE_AGENT, EdgeHub
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.log import logger
from edgeclave.simulator.state import SimulatorState
from edgeclave.simulator.supervisor.agent_methods import AgentLink
from edgeclave.simulator.supervisor.module import NEVER, Module, ModuleState
from edgeclave.simulator.supervisor.program import ModuleHost, Program
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
    """Runs what the deployment asks for, on a host for processes or for containers."""

    def __init__(
        self, state: SimulatorState, hub: EdgeHub, host: ModuleHost, report: Callable[[ModuleEvent], None]
    ) -> None:
        self._state = state
        self._links = hub.links
        self._host = host
        self._event = report
        self._name = IdentityName(state.settings.device_id, EDGE_AGENT)
        self._modules: dict[str, Module] = {}
        self._link = AgentLink(self._name, hub.methods, lambda: self._modules)
        self._not_started: dict[str, ModuleSpecification] = {}
        self._by_hand: set[str] = set()
        self._reconciling = asyncio.Lock()
        self._reconciled = asyncio.Event()
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
        await asyncio.gather(*(module.stop() for module in self._modules.values()))

    async def reconciled(self) -> None:
        """Returns once all deployed modules have been started, or were found not to be startable."""
        await self._reconciled.wait()

    async def take_over(self, module_id: str) -> dict[str, str]:
        """Leaves a module to somebody who runs it by hand; returns the environment that it would run with.

        Raises:
            ConfigurationError: `no-such-module`, `not-by-hand`.
        """
        async with self._reconciling:
            specification = self._specification(module_id)
            environment = self._host.environment(specification, self._state.module(module_id))
            self._by_hand.add(module_id)
            module = self._modules.pop(module_id, None)
            if module is not None:
                await module.stop()
                await module.program.remove()
        self._wake.set()
        return environment

    def give_back(self, module_id: str) -> None:
        """Runs a module again that was taken over. Raises ConfigurationError `no-such-module`."""
        self._specification(module_id)
        self._by_hand.discard(module_id)
        self._wake.set()

    @property
    def modules(self) -> Mapping[str, Module]:
        return self._modules

    def program_of(self, module_id: str) -> Program | None:
        """What runs as this module here, or None."""
        module = self._modules.get(module_id)
        return module.program if module is not None else None

    def _desired_changed(self, change: DesiredChange) -> None:
        if change.name.device_id == self._name.device_id:  # a module's own twin may name files to bring to it
            self._wake.set()

    async def _reconcile_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                async with self._reconciling:
                    await self._reconcile(self._specifications())
                self._problem = ""
            except ConfigurationError as error:
                self._problem = str(error)
                _log.error("the deployment cannot be used; the modules stay as they are", problem=str(error))
            except (EdgeclaveError, OSError) as error:
                self._problem = str(error)
                _log.error("cannot reconcile", problem=str(error))
            self._report()
            self._reconciled.set()

    def _specifications(self) -> list[ModuleSpecification]:
        return read_specifications(self._state.twins.at_edge(self._name).desired)

    def _specification(self, module_id: str) -> ModuleSpecification:
        for specification in self._specifications():
            if specification.module_id == module_id:
                return specification
        raise ConfigurationError(
            "no-such-module",
            f"the deployment has no module {module_id[:128]!r}",
            advice="`edgeclave sim status` names them; a program of your own joins by `edgeclave sim env`",
        )

    async def _reconcile(self, specifications: list[ModuleSpecification]) -> None:
        specifications = [self._with_files(each) for each in specifications]
        wanted = {each.module_id: each for each in specifications if self._runs_here(each)}
        self._not_started = {each.module_id: each for each in specifications if each.module_id not in wanted}
        for module_id, module in list(self._modules.items()):
            if wanted.get(module_id) != module.specification:
                await module.stop()
                await module.program.remove()
                del self._modules[module_id]
        for module_id, specification in wanted.items():
            if module_id not in self._modules:
                self._modules[module_id] = self._new_module(specification)
                self._modules[module_id].start()
                await self._modules[module_id].launched()  # in startupOrder, one after the other

    def _runs_here(self, specification: ModuleSpecification) -> bool:
        by_hand = specification.module_id in self._by_hand
        return specification.wanted and not by_hand and not self._host.refusal(specification)

    def _with_files(self, specification: ModuleSpecification) -> ModuleSpecification:
        name = IdentityName(self._name.device_id, specification.module_id)
        if self._state.identities.find(name) is None:  # made with the module
            return specification
        return replace(specification, local_files=self._host.local_files(self._state.twins.at_edge(name).desired))

    def _new_module(self, specification: ModuleSpecification) -> Module:
        logs = self._state.directory / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        log_file = logs / f"{specification.module_id}.log"
        program = self._host.program(specification, self._state.module(specification.module_id), log_file)
        return Module(specification, program, log_file=log_file, changed=self._report)

    def _report(self) -> None:
        """Writes what changed into the reported properties and tells the listener."""
        modules = {module_id: _reported(m.specification, m.state) for module_id, m in self._modules.items()}
        modules |= {module_id: _reported(s, self._reason(s)) for module_id, s in self._not_started.items()}
        twin = self._state.twins.at_edge(self._name)
        report: Section = {
            "schemaVersion": SCHEMA_VERSION,
            "lastDesiredVersion": twin.desired_version,
            "lastDesiredStatus": {"code": 400 if self._problem else 200, "description": self._problem[:500]},
            "runtime": {
                "type": self._host.kind,
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
            module = self._modules.get(module_id)
            self._event(ModuleEvent(module_id, *now, module.log_file if module else None))

    def _reason(self, specification: ModuleSpecification) -> ModuleState:
        if specification.module_id in self._by_hand:
            return ModuleState("stopped", f"run by hand until `edgeclave sim give-back {specification.module_id}`")
        if not specification.wanted:
            return ModuleState("stopped", "the deployment wants it stopped")
        return ModuleState("failed", f"not started: {self._host.refusal(specification)}")


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
        "imagePullPolicy": specification.image_pull_policy,
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
