"""What Docker takes to create a container (Docker Engine API 1.43, ContainerCreate), as far as people write it.

Docker ignores a name that it does not know, so a misspelt restriction restricts nothing. Names are matched without
regard to case, as Docker does.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Strings = list[str] | None
Labels = dict[str, str] | None
Anything = Any


class Device(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    """One of `Devices`."""

    path_on_host: str
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class Mount(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    """One of `Mounts`."""

    type: Literal["bind", "volume", "tmpfs", "npipe", "cluster"]
    target: str
    source: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: dict[str, Any] = {}
    volume_options: dict[str, Any] = {}
    tmpfs_options: dict[str, Any] = {}


class PortBinding(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    """One host port of `PortBindings`."""

    host_port: str = ""  # any that is free
    host_ip: str = ""


class LogConfig(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    """`LogConfig`; Docker wants every value of `Config` as text, numbers too."""

    type: str
    config: dict[str, str] | None = None


class Ulimit(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    """One of `Ulimits`."""

    name: str
    soft: int
    hard: int


class HostConfig(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    """`HostConfig`: what a container gets of its host. Lists of objects are checked one by one elsewhere."""

    annotations: Labels = None
    auto_remove: bool = False
    binds: Strings = None
    blkio_device_read_bps: list[Any] | None = None
    blkio_device_read_i_ops: list[Any] | None = msgspec.field(default=None, name="BlkioDeviceReadIOps")
    blkio_device_write_bps: list[Any] | None = None
    blkio_device_write_i_ops: list[Any] | None = msgspec.field(default=None, name="BlkioDeviceWriteIOps")
    blkio_weight: int = 0
    blkio_weight_device: list[Any] | None = None
    cap_add: Strings = None
    cap_drop: Strings = None
    cgroup: str = ""
    cgroup_parent: str = ""
    cgroupns_mode: str = ""
    console_size: list[int] | None = None
    container_id_file: str = msgspec.field(default="", name="ContainerIDFile")
    cpu_count: int = 0
    cpu_percent: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    device_cgroup_rules: Strings = None
    device_requests: list[Any] | None = None
    devices: list[Any] | None = None
    dns: Strings = None
    dns_options: Strings = None
    dns_search: Strings = None
    extra_hosts: Strings = None
    group_add: list[str | int] | None = None
    init: bool | None = None
    io_maximum_bandwidth: int = msgspec.field(default=0, name="IOMaximumBandwidth")
    io_maximum_iops: int = msgspec.field(default=0, name="IOMaximumIOps")
    ipc_mode: str = ""
    isolation: str = ""
    kernel_memory: int = 0
    kernel_memory_tcp: int = msgspec.field(default=0, name="KernelMemoryTCP")
    links: Strings = None
    log_config: dict[str, Any] | None = None
    masked_paths: Strings = None
    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    mounts: list[Any] | None = None
    nano_cpus: int = msgspec.field(default=0, name="NanoCpus")
    network_mode: str = ""
    oom_kill_disable: bool | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    pids_limit: int | None = None
    port_bindings: dict[str, Any] | None = None
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_paths: Strings = None
    readonly_rootfs: bool = False
    restart_policy: dict[str, Any] | None = None
    runtime: str = ""
    security_opt: Strings = None
    shm_size: int = 0
    storage_opt: Labels = None
    sysctls: Labels = None
    tmpfs: Labels = None
    ulimits: list[Any] | None = None
    userns_mode: str = ""
    uts_mode: str = msgspec.field(default="", name="UTSMode")
    volume_driver: str = ""
    volumes_from: Strings = None


class CreateOptions(msgspec.Struct, forbid_unknown_fields=True, rename="pascal"):
    """The whole of `createOptions`."""

    args_escaped: bool = False
    attach_stderr: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    cmd: list[str] | str | None = None
    domainname: str = ""
    entrypoint: list[str] | str | None = None
    env: Strings = None
    exposed_ports: dict[str, dict[str, Any]] | None = None
    healthcheck: dict[str, Any] | None = None
    host_config: dict[str, Any] | None = None
    hostname: str = ""
    image: str = ""
    labels: Labels = None
    mac_address: str = ""
    network_disabled: bool = False
    networking_config: dict[str, Any] | None = None
    on_build: Strings = None
    open_stdin: bool = False
    shell: Strings = None
    stdin_once: bool = False
    stop_signal: str = ""
    stop_timeout: int | None = None
    tty: bool = False
    user: str = ""
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
