"""One module's container: created once, started again after each end as edgeAgent does, removed with the module."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeclave.simulator.log import logger
from edgeclave.simulator.supervisor.containers.create_body import bound_volumes
from edgeclave.simulator.supervisor.containers.engine import Engine, EngineError, NoSuchThing, in_thread
from edgeclave.simulator.supervisor.containers.images import Images
from edgeclave.simulator.supervisor.log_file import open_log
from edgeclave.simulator.supervisor.program import Ended
from edgeclave.simulator.supervisor.specification import ModuleSpecification
from edgeclave.uninterrupted import to_its_end

if TYPE_CHECKING:
    from docker import APIClient  # type: ignore[import-untyped]

_CONTAINER = re.compile(r"(docker-)?[0-9a-f]{64}(\.scope)?")  # cgroupfs, systemd
REMOVED = 137  # what a container's process ends with when it is killed
_log = logger("supervisor")


class ModuleContainer:
    """A program for edgeAgent.

    Args:
        body: of the create request; called when the container is made.
        name: in the engine.
        log_file: gets its stdout and stderr.
    """

    def __init__(
        self,
        engine: Engine,
        images: Images,
        specification: ModuleSpecification,
        body: Callable[[], dict[str, Any]],
        *,
        name: str,
        log_file: Path,
    ) -> None:
        self._engine = engine
        self._images = images
        self._specification = specification
        self._body = body
        self._name = name
        self._log_file = log_file
        self._architecture = engine.architecture
        self._id: str | None = None
        self._pid = 0
        self._log_since = 0.0
        self._turn = asyncio.Lock()  # a stop waits for a start that the engine is busy with

    @property
    def pid(self) -> int | None:
        return self._pid or None

    @property
    def shown(self) -> str:
        return f"container {self._name}"

    async def start(self) -> None:
        if self._id is None:
            self._architecture = await self._images.ensure(self._specification, self._log_file)
        async with self._turn:
            try:
                await self._start()
            except NoSuchThing:
                if self._id is None:
                    raise
                self._id = None  # removed from outside: made again
                await self._start()

    async def _start(self) -> None:
        if self._id is None:
            self._id = await self._create()
        container, self._log_since = self._id, time.time()
        try:
            await self._engine.call(lambda client: client.start(container), f"start {self.shown}")
        except NoSuchThing:
            raise
        except EngineError:
            await self.remove()  # what did not start is not kept
            raise
        self._pid = (await self._inspect(container))["State"]["Pid"]

    async def wait(self) -> Ended:
        container = self._id
        if container is None:
            raise ValueError("it was not started")
        while True:
            await in_thread(lambda: _copy_log(self._engine.client, container, self._log_since, self._log_file))
            self._log_since = time.time()
            try:
                state = (await self._inspect(container))["State"]
            except NoSuchThing:
                self._id, self._pid = None, 0
                return Ended(REMOVED, "the container was removed from outside")
            if not state["Running"]:
                self._pid = 0
                return Ended(state["ExitCode"], self._reason(state))
            self._pid = state["Pid"]  # restarted from outside, or the engine let go of the log

    async def stop(self) -> None:
        async with self._turn:
            container = self._id
            if container is None:
                return
            try:
                await self._engine.call(lambda client: client.stop(container), f"stop {self.shown}")
            except NoSuchThing:
                self._id = None
            except EngineError as error:
                _log.error("a container was not stopped", module=self._specification.module_id, problem=str(error))
            self._pid = 0

    async def remove(self) -> None:
        container, self._id, self._pid = self._id, None, 0
        if container is None:
            return
        try:
            await self._engine.call(
                lambda client: client.remove_container(container, v=True, force=True), f"remove {self.shown}"
            )
        except NoSuchThing:
            pass
        except EngineError as error:
            _log.error("a container was not removed", module=self._specification.module_id, problem=str(error))

    def owns(self, pid: int) -> bool | None:
        if self._id is None:
            return None
        try:
            return in_container(Path(f"/proc/{pid}/cgroup").read_text(), self._id)
        except OSError:
            return False  # it is gone, or it is in no namespace that can be seen from here

    async def _create(self) -> str:
        body = self._body()
        for volume in bound_volumes(body):
            await self._make_volume(volume, body["Labels"])
        creating = self._engine.call(
            lambda client: client.create_container_from_config(body, self._name), f"make {self.shown}"
        )
        created = await to_its_end(creating)  # else whoever removes what is left would not see it
        for warning in created.get("Warnings") or []:
            _log.warning("the engine warns", module=self._specification.module_id, warning=warning)
        return str(created["Id"])

    async def _make_volume(self, name: str, labels: dict[str, str]) -> None:
        """Nothing happens when it is there."""
        await self._engine.call(lambda client: client.create_volume(name, labels=labels), f"make volume {name}")

    async def _inspect(self, container: str) -> dict[str, Any]:
        inspected: dict[str, Any] = await self._engine.call(
            lambda client: client.inspect_container(container), f"look at {self.shown}"
        )
        return inspected

    def _reason(self, state: dict[str, Any]) -> str:
        if state.get("OOMKilled"):
            return "killed: it used more memory than HostConfig.Memory allows"
        code = state["ExitCode"]
        if code and self._architecture != self._engine.architecture:
            here = self._engine.architecture
            return f"exited with code {code}; its image is for {self._architecture}, and this machine is {here}"
        return f"exited with code {code}"


def in_container(control_groups: str, container: str) -> bool:
    """Whether a process belongs to a container.

    Args:
        control_groups: its /proc/PID/cgroup. Only root can move a process into a group of a container's name.
        container: the container's id, 64 hexadecimal digits.
    """
    paths = (line.split(":", 2)[-1] for line in control_groups.splitlines())
    return any(_CONTAINER.fullmatch(part) and container in part for p in paths for part in p.split("/"))


def _copy_log(client: APIClient, container: str, since: float, log_file: Path) -> None:
    """Runs in a thread until the container ends, or the engine does."""
    from docker.errors import APIError, DockerException  # type: ignore[import-untyped]
    from requests.exceptions import RequestException

    descriptor = open_log(log_file)
    try:
        for piece in client.logs(container, stream=True, follow=True, since=since):
            os.write(descriptor, piece)
    except APIError as error:
        if "does not support reading" in str(error.explanation):
            os.write(descriptor, b"the log driver of its createOptions keeps the output elsewhere\n")
            with contextlib.suppress(DockerException, RequestException, OSError):
                client.wait(container, timeout=None)
    except (DockerException, RequestException, OSError):
        pass  # whether it still runs is asked next
    finally:
        os.close(descriptor)
