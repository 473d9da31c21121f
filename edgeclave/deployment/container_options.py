"""Docker's container create options: every field of the Engine API (POST /containers/create) and its type.

An engine ignores what it does not know, so that `"CapDrp": ["ALL"]` would run a module with capabilities that its
deployment takes away. Here such a name is refused, with the one that was probably meant. Upper and lower case make no
difference to an engine or edgeAgent: people do write `"DNS"`.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from edgeclave.deployment.document import alternatives, field_types

_Texts = list[str] | None
_Map = dict[str, str] | None
_Flag = bool | None
_Number = int | None
_Text = str | None


_EXCEPTIONS = {
    "blkio_device_read_iops": "BlkioDeviceReadIOps",
    "blkio_device_write_iops": "BlkioDeviceWriteIOps",
    "container_id_file": "ContainerIDFile",
    "device_ids": "DeviceIDs",
    "io_maximum_bandwidth": "IOMaximumBandwidth",
    "io_maximum_iops": "IOMaximumIOps",
    "ipam_config": "IPAMConfig",
    "ipv4_address": "IPv4Address",
    "ipv6_address": "IPv6Address",
    "kernel_memory_tcp": "KernelMemoryTCP",
    "link_local_ips": "LinkLocalIPs",
    "network_id": "NetworkID",
    "uts_mode": "UTSMode",
}


def _docker_name(field: str) -> str:
    return _EXCEPTIONS.get(field) or "".join(word.capitalize() for word in field.split("_"))


class _Options(msgspec.Struct, forbid_unknown_fields=True, rename=_docker_name):
    pass


class _Health(_Options):
    test: _Texts = None
    interval: _Number = None
    timeout: _Number = None
    start_period: _Number = None
    start_interval: _Number = None
    retries: _Number = None


class _Weight(_Options):
    path: str
    weight: int


class _Rate(_Options):
    path: str
    rate: int


class _Device(_Options):
    path_on_host: str
    path_in_container: str = ""
    cgroup_permissions: str = ""


class _DeviceRequest(_Options):
    driver: str = ""
    count: int = 0
    device_ids: _Texts = None
    capabilities: list[list[str]] | None = None
    options: _Map = None


class _Limit(_Options):
    name: str
    soft: int
    hard: int


class _Port(_Options):
    host_port: str | int = ""
    host_ip: str = ""


class _Restart(_Options):
    name: Literal["", "no", "always", "unless-stopped", "on-failure"] = ""
    maximum_retry_count: int = 0


class _Log(_Options):
    type: str = ""
    config: _Map = None


class _BindMount(_Options):
    propagation: _Text = None
    non_recursive: _Flag = None
    create_mountpoint: _Flag = None
    read_only_non_recursive: _Flag = None
    read_only_force_recursive: _Flag = None


class _VolumeDriver(_Options):
    name: str = ""
    options: _Map = None


class _VolumeMount(_Options):
    no_copy: _Flag = None
    labels: _Map = None
    driver_config: _VolumeDriver | None = None
    subpath: _Text = None


class _TmpfsMount(_Options):
    size_bytes: _Number = None
    mode: _Number = None
    options: list[list[str]] | None = None


class _Mount(_Options):
    target: str
    type: Literal["bind", "volume", "tmpfs", "npipe", "cluster", "image"]
    source: str = ""
    read_only: _Flag = None
    consistency: _Text = None
    bind_options: _BindMount | None = None
    volume_options: _VolumeMount | None = None
    tmpfs_options: _TmpfsMount | None = None
    image_options: dict[str, Any] | None = None


class _IpAddresses(_Options):
    ipv4_address: _Text = None
    ipv6_address: _Text = None
    link_local_ips: _Texts = None


class _Endpoint(_Options):
    ipam_config: _IpAddresses | None = None
    links: _Texts = None
    aliases: _Texts = None
    mac_address: _Text = None
    driver_opts: _Map = None
    gw_priority: _Number = None
    network_id: _Text = None


class _Networking(_Options):
    endpoints_config: dict[str, _Endpoint | None] | None = None


class _Host(_Options):
    annotations: _Map = None
    auto_remove: _Flag = None
    binds: _Texts = None
    blkio_device_read_bps: list[_Rate] | None = None
    blkio_device_read_iops: list[_Rate] | None = None
    blkio_device_write_bps: list[_Rate] | None = None
    blkio_device_write_iops: list[_Rate] | None = None
    blkio_weight: _Number = None
    blkio_weight_device: list[_Weight] | None = None
    cap_add: _Texts = None
    cap_drop: _Texts = None
    capabilities: _Texts = None
    cgroup: _Text = None
    cgroup_parent: _Text = None
    cgroupns_mode: _Text = None
    console_size: list[int] | None = None
    container_id_file: _Text = None
    cpu_count: _Number = None
    cpu_percent: _Number = None
    cpu_period: _Number = None
    cpu_quota: _Number = None
    cpu_realtime_period: _Number = None
    cpu_realtime_runtime: _Number = None
    cpu_shares: _Number = None
    cpuset_cpus: _Text = None
    cpuset_mems: _Text = None
    device_cgroup_rules: _Texts = None
    device_requests: list[_DeviceRequest] | None = None
    devices: list[_Device] | None = None
    dns: _Texts = None
    dns_options: _Texts = None
    dns_search: _Texts = None
    extra_hosts: _Texts = None
    group_add: list[str | int] | None = None
    init: _Flag = None
    io_maximum_bandwidth: _Number = None
    io_maximum_iops: _Number = None
    ipc_mode: _Text = None
    isolation: _Text = None
    kernel_memory: _Number = None
    kernel_memory_tcp: _Number = None
    links: _Texts = None
    log_config: _Log | None = None
    masked_paths: _Texts = None
    memory: _Number = None
    memory_reservation: _Number = None
    memory_swap: _Number = None
    memory_swappiness: _Number = None
    mounts: list[_Mount] | None = None
    nano_cpus: _Number = None
    network_mode: _Text = None
    oom_kill_disable: _Flag = None
    oom_score_adj: _Number = None
    pid_mode: _Text = None
    pids_limit: _Number = None
    port_bindings: dict[str, list[_Port] | None] | None = None
    privileged: _Flag = None
    publish_all_ports: _Flag = None
    readonly_paths: _Texts = None
    readonly_rootfs: _Flag = None
    restart_policy: _Restart | None = None
    runtime: _Text = None
    security_opt: _Texts = None
    shm_size: _Number = None
    storage_opt: _Map = None
    sysctls: _Map = None
    tmpfs: _Map = None
    ulimits: list[_Limit] | None = None
    userns_mode: _Text = None
    uts_mode: _Text = None
    volume_driver: _Text = None
    volumes_from: _Texts = None


class ContainerOptions(_Options):
    """The top level."""

    args_escaped: _Flag = None
    attach_stderr: _Flag = None
    attach_stdin: _Flag = None
    attach_stdout: _Flag = None
    cmd: list[str] | str | None = None
    domainname: _Text = None
    entrypoint: list[str] | str | None = None
    env: _Texts = None
    exposed_ports: dict[str, dict[str, Any] | None] | None = None
    healthcheck: _Health | None = None
    host_config: _Host | None = None
    hostname: _Text = None
    image: _Text = None
    labels: _Map = None
    mac_address: _Text = None
    name: _Text = None  # some tools write it; the engine takes a container's name from elsewhere
    network_disabled: _Flag = None
    networking_config: _Networking | None = None
    on_build: _Texts = None
    open_stdin: _Flag = None
    shell: _Texts = None
    stdin_once: _Flag = None
    stop_signal: _Text = None
    stop_timeout: _Number = None
    tty: _Flag = None
    user: _Text = None
    volumes: dict[str, dict[str, Any] | None] | None = None
    working_dir: _Text = None


def canonical(value: Any, kind: Any = ContainerOptions) -> Any:
    """The same options with every known name in Docker's own spelling."""
    if isinstance(value, dict) and (types := field_types(kind)):
        spelling = {name.lower(): name for name in types}
        spelled = ((spelling.get(name.lower(), name), member) for name, member in value.items())
        return {name: canonical(member, types.get(name)) for name, member in spelled}
    inner = next((get_args(each)[-1] for each in alternatives(kind) if get_args(each)), None)
    if isinstance(value, dict):
        return {name: canonical(member, inner) for name, member in value.items()}
    if isinstance(value, list):
        return [canonical(member, inner) for member in value]
    return value
