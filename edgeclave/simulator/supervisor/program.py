"""What runs a module: a process (`process.py`) or a container (`containers/`). edgeAgent drives both alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgeclave.simulator.identities import HubIdentity
from edgeclave.simulator.supervisor.specification import ModuleSpecification


@dataclass(frozen=True)
class Ended:
    """How one run of a program ended; the exit code is negative for a process that a signal ended."""

    exit_code: int
    reason: str


class Program(Protocol):
    """One module's program, started again and again until it is removed."""

    @property
    def pid(self) -> int | None:
        """Of its first process, while it runs."""

    @property
    def shown(self) -> str:
        """What a person can look for; empty where the module's name is enough."""

    async def start(self) -> None:
        """Returns once it runs.

        Raises:
            ConfigurationError: it cannot be started as it is deployed; trying again would not help.
            EdgeclaveError: it could not be started this time.
        """

    async def wait(self) -> Ended:
        """Returns at the end of this run.

        Raises:
            EdgeclaveError: it is not known any more whether it runs.
        """

    async def stop(self) -> None:
        """Asks it to end, then ends it, and waits for that. Not started, or ended already: nothing happens."""

    async def remove(self) -> None:
        """Nothing of the stopped program stays but its data."""

    def owns(self, pid: int) -> bool | None:
        """Whether a process of this machine is the program's; None while it does not run."""


class ModuleHost(Protocol):
    """Where programs of modules run."""

    kind: str
    """edgeAgent's `runtime.type`."""

    def refusal(self, specification: ModuleSpecification) -> str:
        """Why a module of this image cannot run here at all; empty when it can."""

    def local_files(self, desired: Mapping[str, Any]) -> tuple[str, ...]:
        """Files of this machine that a module's twin names and that have to be brought to it."""

    def environment(self, specification: ModuleSpecification, identity: HubIdentity) -> dict[str, str]:
        """What somebody needs who runs a module by hand on this machine.

        Raises:
            ConfigurationError: `not-by-hand`.
        """

    def program(self, specification: ModuleSpecification, identity: HubIdentity, log_file: Path) -> Program:
        """The program of a module whose output goes to `log_file`."""
