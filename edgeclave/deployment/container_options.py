"""createOptions: what Docker would ignore or refuse, and what would hand the device to a module.

`Privileged`, the socket of the container engine and the root of the host's file system are errors: a module that has
one of them is root on the device. IoT Edge strips `Privileged` and `CapAdd` by default, so that a module which needs
them would not work either.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from edgeclave.deployment.container_fields import (
    CreateOptions,
    Device,
    HostConfig,
    LogConfig,
    Mount,
    PortBinding,
    Ulimit,
)
from edgeclave.deployment.findings import Report
from edgeclave.deployment.structure import check_object, kind_of, member
from edgeclave.deployment.twin_limits import Path

ENGINE_SOCKETS = ("docker.sock", "containerd.sock", "podman.sock", "crio.sock")
_SYSTEM_FOLDERS = ("/etc", "/proc", "/sys", "/dev", "/boot", "/root", "/usr", "/var/run", "/run", "/var/lib/docker")
_PORT = re.compile(r"(?P<port>[0-9]{1,5})(?:/(?:tcp|udp|sctp))?")
_HOST_MODES = ("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode")
_LISTS: dict[str, type[msgspec.Struct]] = {"Devices": Device, "Mounts": Mount, "Ulimits": Ulimit}
_UNSAFE = "unsafe-create-options"
_BAD = "bad-create-options"


def check_create_options(options: dict[str, Any], path: Path, report: Report) -> None:
    check_object(options, CreateOptions, path, report, any_case=True)
    for key in _present(options, "ExposedPorts"):
        for port in options[key]:
            _check_port(port, (*path, key, port), report)
    for key in _present(options, "HostConfig"):
        _check_host_config(options[key], (*path, key), report)


def host_ports(options: dict[str, Any]) -> Iterator[tuple[tuple[str, str, str], Path]]:
    """(address, host port, protocol) of each port that is published, with its place below createOptions."""
    for host in _present(options, "HostConfig"):
        for ports in _present(options[host], "PortBindings"):
            for port, bindings in options[host][ports].items():
                for index, binding in enumerate(bindings if isinstance(bindings, list) else []):
                    if isinstance(binding, dict) and isinstance(binding.get("HostPort"), str) and binding["HostPort"]:
                        protocol = port.partition("/")[2] or "tcp"
                        place = (host, ports, port, index)
                        yield (str(binding.get("HostIp") or "0.0.0.0"), binding["HostPort"], protocol), place  # noqa: S104


def _check_host_config(host: dict[str, Any], path: Path, report: Report) -> None:
    check_object(host, HostConfig, path, report, any_case=True)
    _check_privileges(host, path, report)
    for name, kind in _LISTS.items():
        for key in _present(host, name, list):
            for index, item in enumerate(host[key]):
                check_object(item, kind, (*path, key, index), report, any_case=True)
    for key in _present(host, "LogConfig"):
        check_object(host[key], LogConfig, (*path, key), report, any_case=True)
    for key in _present(host, "PortBindings"):
        for port, bindings in host[key].items():
            _check_port(port, (*path, key, port), report)
            if not isinstance(bindings, list):
                report.error((*path, key, port), f"must be an array, not {kind_of(bindings)}", '[{"HostPort": "8080"}]')
                continue
            for index, binding in enumerate(bindings):
                if check_object(binding, PortBinding, (*path, key, port, index), report, any_case=True):
                    _check_port(binding.get("HostPort") or "1", (*path, key, port, index, "HostPort"), report)
    for source, place in _host_paths(host, path, report):
        _check_source(source, place, report)


def _check_privileges(host: dict[str, Any], path: Path, report: Report) -> None:
    for key in _present(host, "Privileged", bool):
        if host[key]:
            report.error(
                (*path, key),
                "a privileged container is root on the device",
                "remove it; name the device nodes that the module needs in Devices",
                code=_UNSAFE,
            )
    for key in _present(host, "CapAdd", list):
        if host[key]:
            report.warn(
                (*path, key),
                f"IoT Edge strips added capabilities by default: {', '.join(map(str, host[key]))}",
                "make the module work without them",
                code=_UNSAFE,
            )
    for mode in _HOST_MODES:
        for key in _present(host, mode, str):
            if host[key] == "host":
                report.warn((*path, key), "shares a namespace of the host with the module", "remove it", code=_UNSAFE)
    for key in _present(host, "SecurityOpt", list):
        for index, option in enumerate(host[key]):
            if isinstance(option, str) and option.endswith(("=unconfined", ":unconfined")):
                report.warn((*path, key, index), f"{option!r} takes a protection away", "remove it", code=_UNSAFE)


def _host_paths(host: dict[str, Any], path: Path, report: Report) -> Iterator[tuple[str, Path]]:
    for key in _present(host, "Binds", list):
        for index, bind in enumerate(host[key]):
            parts = bind.split(":") if isinstance(bind, str) else []
            if len(parts) not in (2, 3) or not parts[1].startswith("/"):
                report.error(
                    (*path, key, index), f"{bind!r} is not a bind", "write source:/path or source:/path:ro", code=_BAD
                )
            elif parts[0].startswith("/"):
                yield parts[0], (*path, key, index)
    for key in _present(host, "Mounts", list):
        for index, mount in enumerate(host[key]):
            if not isinstance(mount, dict):
                continue
            kind, source = mount.get(member(mount, "Type") or ""), mount.get(member(mount, "Source") or "")
            if kind == "bind" and isinstance(source, str):
                yield source, (*path, key, index)
            elif kind == "volume" and isinstance(source, str) and source.startswith("/"):
                what = f"{source!r} is a path, and a volume has a name"
                report.error((*path, key, index), what, 'write a name, or "Type": "bind"', code=_BAD)


def _check_source(source: str, path: Path, report: Report) -> None:
    source = posixpath.normpath(source)
    if posixpath.basename(source) in ENGINE_SOCKETS:
        report.error(
            path,
            f"{source} is the container engine's socket: who has it is root on the device",
            "remove this mount",
            code=_UNSAFE,
        )
    elif source in ("/", "//"):
        what = "the whole file system of the host is mounted"
        report.error(path, what, "mount the one folder that the module needs", code=_UNSAFE)
    elif source in _SYSTEM_FOLDERS:
        what = f"{source} of the host is mounted"
        report.warn(path, what, "mount the one file or folder that the module needs", code=_UNSAFE)


def _check_port(port: str, path: Path, report: Report) -> None:
    match = _PORT.fullmatch(port)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        report.error(path, f"{port!r} is not a port", "write it as 8080/tcp", code=_BAD)


def _present(value: dict[str, Any], name: str, kind: type = dict) -> Iterator[str]:
    """The member as it is written, when it is there and of this kind; another kind was told of before."""
    key = member(value, name)
    if key is not None and isinstance(value[key], kind):
        yield key
