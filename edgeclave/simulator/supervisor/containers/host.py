"""Where containers of one simulator live: their network, their volumes, and what an earlier run left of them.

Everything that is made in the engine has this simulator's label, and nothing without it is ever touched. Containers
and network end with the simulator; what a killed one left is removed at the next start. Volumes hold the state of the
modules: they stay, until the simulator's own state was started over.
"""

from __future__ import annotations

import asyncio
import stat
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edgeclave.deployment import create_options
from edgeclave.deployment.container_options import check_create_options
from edgeclave.deployment.findings import Report
from edgeclave.errors import ConfigurationError
from edgeclave.simulator.identities import HubIdentity, IdentityName
from edgeclave.simulator.log import logger
from edgeclave.simulator.state import SimulatorState, edge_environment
from edgeclave.simulator.supervisor.containers.container import ModuleContainer
from edgeclave.simulator.supervisor.containers.create_body import WORKLOAD_SOCKET, Surroundings, create_body
from edgeclave.simulator.supervisor.containers.engine import Engine, EngineError, NoSuchThing
from edgeclave.simulator.supervisor.containers.images import Images, Progress
from edgeclave.simulator.supervisor.specification import ModuleSpecification
from edgeclave.simulator.workload.sockets import runtime_folder, socket_path
from edgeclave.uninterrupted import to_its_end

SIMULATOR_LABEL = "edgeclave.simulator"
STATE_LABEL = "edgeclave.state"
MODULE_LABEL = "edgeclave.module"
SOCKET_MODE = 0o666  # as aziot-edged has it; on this machine its folder is for this user only
TRUSTED_APPS = "trustedApps"
_log = logger("supervisor")


class ContainerHost:
    """Made by `running`."""

    kind = "docker"

    def __init__(self, engine: Engine, state: SimulatorState, images: Images, gateway_address: str) -> None:
        self._engine = engine
        self._state = state
        self._images = images
        prefix, labels = _names(state)
        self._surroundings = Surroundings(prefix, (state.settings.gateway, gateway_address), labels)

    @classmethod
    @asynccontextmanager
    async def running(
        cls, engine: Engine, state: SimulatorState, folders: Mapping[str, Path], progress: Progress
    ) -> AsyncIterator[ContainerHost]:
        """With a network; at the end no container and no network of this simulator is left.

        Raises:
            EngineError: `docker-failed`.
            ConfigurationError: `network-name-taken`.
        """
        prefix, labels = _names(state)
        await _remove_containers(engine, prefix)
        await _remove_volumes_of_earlier_states(engine, prefix, labels[STATE_LABEL])
        gateway = await to_its_end(_network(engine, prefix, labels), undo=lambda _: _remove_network(engine, prefix))
        try:
            yield cls(engine, state, Images(engine, folders, progress), gateway)
        finally:
            try:
                await _remove_containers(engine, prefix)
                await _remove_network(engine, prefix)
            except EngineError as error:  # the next start tries again
                _log.error("not everything was removed from the engine", problem=str(error))

    @property
    def gateway_address(self) -> str:
        """This machine's address on the modules' network."""
        return self._surroundings.gateway[1]

    def refusal(self, specification: ModuleSpecification) -> str:
        return ""

    def local_files(self, desired: Mapping[str, Any]) -> tuple[str, ...]:
        """Packages of trusted applications that a twin names by their path on this machine."""
        apps = desired.get(TRUSTED_APPS)
        found = set()
        for app in apps.values() if isinstance(apps, Mapping) else ():
            reference = app.get("package") if isinstance(app, Mapping) else None
            if isinstance(reference, str) and (path := _local_path(reference)):
                found.add(path)
        return tuple(sorted(found))

    def environment(self, specification: ModuleSpecification, identity: HubIdentity) -> dict[str, str]:
        raise ConfigurationError(
            "not-by-hand",
            f"{specification.module_id} runs in a container, out of which nothing can be taken over",
            advice="attach to its debug image, or start the simulator without --containers",
        )

    def program(self, specification: ModuleSpecification, identity: HubIdentity, log_file: Path) -> ModuleContainer:
        module_id = specification.module_id

        def body() -> dict[str, Any]:
            _check(specification)
            socket = socket_path(self._state.directory, module_id)
            socket.chmod(SOCKET_MODE)
            edge = edge_environment(
                self._state.settings,
                module_id=module_id,
                generation_id=identity.generation_id,
                workload_uri=f"unix://{WORKLOAD_SOCKET}",
            )
            made = create_body(
                specification.create_options,
                self._surroundings,
                module_id=module_id,
                image=specification.image,
                environment={**specification.environment, **edge},
                workload_socket=str(socket),
                files=specification.local_files,
            )
            made["Labels"][MODULE_LABEL] = module_id
            return made

        name = self._surroundings.name(module_id)
        return ModuleContainer(self._engine, self._images, specification, body, name=name, log_file=log_file)


def _check(specification: ModuleSpecification) -> None:
    """The engine would pass over a name that it does not know: a module would run with more than it is to have.

    Raises:
        ConfigurationError: what is wrong first.
    """
    report = Report(f"{specification.module_id}: {create_options.NAME}")
    check_create_options(dict(specification.create_options), (), report)
    for finding in report.findings:
        if finding.severity == "error":
            raise finding.error()


def _names(state: SimulatorState) -> tuple[str, dict[str, str]]:
    """The prefix and labels of a simulator's things; the state's own mark changes when it is started over."""
    prefix = runtime_folder(state.directory).name
    device = state.identities.get(IdentityName(state.settings.device_id))
    return prefix, {SIMULATOR_LABEL: prefix, STATE_LABEL: device.generation_id}


async def _remove_containers(engine: Engine, prefix: str) -> None:
    listed = await engine.call(
        lambda client: client.containers(all=True, filters={"label": f"{SIMULATOR_LABEL}={prefix}"}), "list containers"
    )

    async def remove(container: str) -> None:
        try:
            await engine.call(lambda client: client.stop(container), f"stop container {container[:12]}")
            await engine.call(
                lambda client: client.remove_container(container, v=True, force=True),
                f"remove container {container[:12]}",
            )
        except NoSuchThing:
            pass

    await asyncio.gather(*(remove(each["Id"]) for each in listed))


async def _remove_volumes_of_earlier_states(engine: Engine, prefix: str, state: str) -> None:
    listed = await engine.call(
        lambda client: client.volumes(filters={"label": f"{SIMULATOR_LABEL}={prefix}"}), "list volumes"
    )
    for volume in listed["Volumes"] or []:
        if volume["Labels"].get(STATE_LABEL) != state:
            await _remove_volume(engine, volume["Name"])


async def _remove_volume(engine: Engine, name: str) -> None:
    await engine.call(lambda client: client.remove_volume(name), f"remove volume {name}")


async def _network(engine: Engine, prefix: str, labels: Mapping[str, str]) -> str:
    """The network's address on this machine. One that an earlier run left is used again."""
    listed: list[dict[str, Any]] = await engine.call(lambda client: client.networks(names=[prefix]), "list networks")
    network: dict[str, Any] | None = next((each for each in listed if each["Name"] == prefix), None)
    if network is not None and (network["Labels"] or {}).get(SIMULATOR_LABEL) != prefix:
        raise ConfigurationError(
            "network-name-taken",
            f"there is a network {prefix} that is not this simulator's",
            advice=f"remove it: `docker network rm {prefix}`",
        )
    if network is None:
        await engine.call(
            lambda client: client.create_network(prefix, driver="bridge", labels=dict(labels), check_duplicate=True),
            f"make the network {prefix}",
        )
        network = dict(await engine.call(lambda client: client.inspect_network(prefix), f"look at network {prefix}"))
    return str(network["IPAM"]["Config"][0]["Gateway"])


async def _remove_network(engine: Engine, name: str) -> None:
    await engine.call(lambda client: client.remove_network(name), f"remove the network {name}")


def _local_path(reference: str) -> str | None:
    """The path of an absolute or file:// reference to a file of this machine."""
    parts = urllib.parse.urlsplit(reference)
    if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
        return None
    path = Path(urllib.parse.unquote(parts.path) if parts.scheme else reference)
    try:
        return str(path) if path.is_absolute() and stat.S_ISREG(path.stat().st_mode) else None
    except OSError:
        return None
