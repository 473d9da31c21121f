"""Modules as processes of this user: `modules/x/main.py` for an image `${MODULES.x}`.

A debug image (`${MODULES.x.debug}`) whose createOptions publish the port of debugpy runs under it here as well, at that
port of 127.0.0.1: an editor attaches as it would to the container.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from edgeclave.errors import EdgeclaveError
from edgeclave.process_signals import ProcessSignals
from edgeclave.simulator.identities import HubIdentity
from edgeclave.simulator.log import logger
from edgeclave.simulator.state import SimulatorState, module_environment
from edgeclave.simulator.supervisor import launcher
from edgeclave.simulator.supervisor.log_file import open_log
from edgeclave.simulator.supervisor.program import Ended
from edgeclave.simulator.supervisor.specification import ModuleSpecification

DEBUG_PLATFORM = ".debug"
STOP_SECONDS = 10  # edgeAgent's default before it kills
_INHERITED = ("PATH", "HOME", "LANG")
_log = logger("supervisor")


class ProcessHost:
    """Starts modules from their source. `folders` maps images to source folders."""

    kind = "process"

    def __init__(self, state: SimulatorState, folders: Mapping[str, Path]) -> None:
        self._state = state
        self._folders = folders

    def refusal(self, specification: ModuleSpecification) -> str:
        if specification.image in self._folders:
            return ""
        return f"{specification.image} is not built from a module of this solution; --containers runs any image"

    def local_files(self, desired: Mapping[str, Any]) -> tuple[str, ...]:
        return ()  # a process sees this machine's files

    def program(self, specification: ModuleSpecification, identity: HubIdentity, log_file: Path) -> ModuleProcess:
        main = self._folders[specification.image] / "main.py"
        return ModuleProcess(main, self.environment(specification, identity), log_file, _debug_port(specification))

    def environment(self, specification: ModuleSpecification, identity: HubIdentity) -> dict[str, str]:
        given = module_environment(
            self._state.directory,
            self._state.settings,
            module_id=specification.module_id,
            generation_id=identity.generation_id,
            address=identity.address,
        )
        return {**specification.environment, **given}


class ModuleProcess:
    """A program for edgeAgent.

    Args:
        main: the Python file.
        environment: of the module, without what is inherited; it works in the folder `EDGECLAVE_STATE`.
        log_file: gets its stdout and stderr.
        debug_port: where debugpy listens on 127.0.0.1, if the module runs under it.
    """

    shown = ""

    def __init__(self, main: Path, environment: Mapping[str, str], log_file: Path, debug_port: int | None) -> None:
        self._main = main
        self._debugger = [] if debug_port is None else ["-m", "debugpy", "--listen", f"127.0.0.1:{debug_port}"]
        if self._debugger:  # not in its children: an enclave has no place for a debugger that listens
            self._debugger += ["--configure-subProcess", "False"]
        self._environment = {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            **environment,
        }
        self._log_file = log_file
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        descriptor = open_log(self._log_file)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                launcher.__file__,
                str(os.getpid()),
                sys.executable,
                "-u",
                *self._debugger,
                str(self._main),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=self._environment,
                cwd=self._environment["EDGECLAVE_STATE"],
                start_new_session=True,  # Ctrl-C in the terminal is for the simulator, which then stops the modules
            )
        except OSError as error:
            raise EdgeclaveError("module-not-started", f"cannot be started: {error.strerror}") from error
        finally:
            os.close(descriptor)
        self._signals = ProcessSignals(self._process)

    async def wait(self) -> Ended:
        if self._process is None:
            raise ValueError("it was not started")
        code = await self._process.wait()
        self._signals.close()
        _kill_group(self._process.pid)
        return Ended(code, f"exited with code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}")

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL to it and what it left behind."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            self._signals.send(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                _log.warning("killed, it did not stop in time", main=str(self._main))
        _kill_group(process.pid)
        await process.wait()
        self._signals.close()

    async def remove(self) -> None:
        self._process = None

    def owns(self, pid: int) -> bool | None:
        """It and what it has started; modules lead a session of their own."""
        leader = self.pid
        if leader is None:
            return None
        with contextlib.suppress(OSError, psutil.Error):
            return os.getsid(pid) == leader or leader in [each.pid for each in psutil.Process(pid).parents()]
        return False


def _debug_port(specification: ModuleSpecification) -> int | None:
    """The port of this machine that a module's debugger is published at."""
    match specification.create_options:
        case {"HostConfig": {"PortBindings": {"5678/tcp": [{"HostPort": str(port)}, *_]}}} if port.isdecimal():
            return int(port) if specification.image.endswith(DEBUG_PLATFORM) else None
    return None


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
