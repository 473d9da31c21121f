"""The body of POST /containers/create: a module's createOptions with what edgeAgent and aziot-edged add to them.

As on a device: the image, the deployment's environment and IOTEDGE_* over that of createOptions, the module's own
workload socket, and the network of all modules, on which its name is its host name, unless createOptions name others.

Not as on a device, since there may be other simulators beside this one: names of the engine (containers, volumes, the
network `azure-iot-edge`) get this simulator's prefix, which no module can see.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeclave.errors import ConfigurationError

WORKLOAD_SOCKET = "/var/run/iotedge/workload.sock"  # as aziot-edged mounts it
DEVICE_NETWORK = "azure-iot-edge"  # what IoT Edge calls its network; createOptions may name it
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LOOKED_AT = (
    *("HostConfig", "NetworkingConfig", "EndpointsConfig", "Env", "Labels", "Aliases"),
    *("Binds", "Mounts", "ExtraHosts", "NetworkMode", "Type", "Source", "VolumeOptions"),
)
_SPELLINGS = {name.lower(): name for name in _LOOKED_AT}
_FREE_NAMES = ("Labels", "Volumes", "ExposedPorts", "PortBindings", "Sysctls", "Tmpfs", "Config")


@dataclass(frozen=True)
class Surroundings:
    """What all containers of one simulator share.

    Args:
        prefix: of names in the engine; also the network's name.
        gateway: host name by which modules know edgeHub, and its address on the network.
        labels: how this simulator's things are found again.
    """

    prefix: str
    gateway: tuple[str, str]
    labels: Mapping[str, str]

    def name(self, name: str) -> str:
        """Of a container or volume in the engine."""
        return f"{self.prefix}-{name}"


def create_body(
    options: Mapping[str, Any],
    surroundings: Surroundings,
    *,
    module_id: str,
    image: str,
    environment: Mapping[str, str],
    workload_socket: str,
    files: Sequence[str] = (),
) -> dict[str, Any]:
    """Args:
    options: createOptions, checked.
    environment: of the deployment and of IOTEDGE_*.
    workload_socket: on this machine.
    files: of this machine, to be read at the same path.

    Raises:
        ConfigurationError: `bad-create-options`.
    """
    body: dict[str, Any] = _spelled(copy.deepcopy(dict(options)))
    body["Image"] = image
    body["Env"] = _merged(body.get("Env") or [], environment)
    body["Labels"] = {**(body.get("Labels") or {}), **surroundings.labels}
    host = body["HostConfig"] = body.get("HostConfig") or {}
    binds = [_bind(each, surroundings) for each in host.get("Binds") or []]
    host["Binds"] = [*binds, f"{workload_socket}:{WORKLOAD_SOCKET}", *(f"{path}:{path}:ro" for path in files)]
    for mount in host.get("Mounts") or []:
        if mount.get("Type") == "volume":
            _place_volume(mount, surroundings)
    host["ExtraHosts"] = [*(host.get("ExtraHosts") or []), ":".join(surroundings.gateway)]
    _place_on_network(body, host, surroundings, module_id)
    return body


def bound_volumes(body: Mapping[str, Any]) -> list[str]:
    """Names of volumes in `Binds`, which the engine would make without labels."""
    sources = (bind.partition(":")[0] for bind in body["HostConfig"]["Binds"])
    return [source for source in sources if _VOLUME.fullmatch(source)]


def _merged(given: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """What is given, in its order, with `environment` over it."""
    kept = [each for each in given if each.partition("=")[0] not in environment]
    return [*kept, *(f"{name}={value}" for name, value in environment.items())]


def _bind(bind: str, surroundings: Surroundings) -> str:
    source, colon, rest = bind.partition(":")
    return f"{surroundings.name(source)}{colon}{rest}" if _VOLUME.fullmatch(source) else bind


def _place_volume(mount: dict[str, Any], surroundings: Surroundings) -> None:
    if mount.get("Source"):
        mount["Source"] = surroundings.name(mount["Source"])
    volume = mount["VolumeOptions"] = mount.get("VolumeOptions") or {}
    volume["Labels"] = {**(volume.get("Labels") or {}), **surroundings.labels}


def _place_on_network(body: dict[str, Any], host: dict[str, Any], surroundings: Surroundings, module_id: str) -> None:
    """Unless it has endpoints of its own, which is how a module on a device chooses the host's network."""
    networking = body["NetworkingConfig"] = body.get("NetworkingConfig") or {}
    endpoints = networking.get("EndpointsConfig")
    mode = host.get("NetworkMode")
    if endpoints is None and mode not in (None, "", "default", DEVICE_NETWORK):
        raise ConfigurationError(
            "bad-create-options",
            f"NetworkMode {mode} alone does not keep edgeAgent from joining the module to its own network",
            where=f"{module_id}: createOptions.HostConfig.NetworkMode",
            advice=f'add "NetworkingConfig": {{"EndpointsConfig": {{"{mode}": {{}}}}}}',
        )
    if endpoints is None:
        endpoints = {DEVICE_NETWORK: {}}
    if DEVICE_NETWORK in endpoints:
        endpoint = endpoints.pop(DEVICE_NETWORK) or {}
        endpoint["Aliases"] = [*(endpoint.get("Aliases") or []), module_id]
        endpoints = {surroundings.prefix: endpoint, **endpoints}
    networking["EndpointsConfig"] = endpoints
    if mode in (None, "", "default", DEVICE_NETWORK) and surroundings.prefix in endpoints:
        host["NetworkMode"] = surroundings.prefix


def _spelled(value: Any) -> Any:
    """With the names that are looked at here as Docker's documents write them: an engine takes any case."""
    if isinstance(value, list):
        return [_spelled(each) for each in value]
    if not isinstance(value, dict):
        return value
    spelled = {_SPELLINGS.get(name.lower(), name): member for name, member in value.items()}
    return {name: member if name in _FREE_NAMES else _spelled(member) for name, member in spelled.items()}
