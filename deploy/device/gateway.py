"""What a gateway needs, step by step: what is missing, and how it is made so.

For DPS with a symmetric key or an X.509 certificate after Microsoft's pages "Create and provision IoT Edge devices at
scale on Linux"; besides that what trusted applications need: groups of TEE devices, limits for logs, a clock that is
right.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from machine import Machine, Refused

SYSTEMS = {("debian", "12"), ("ubuntu", "22.04"), ("ubuntu", "24.04")}
ENGINES = ("moby-engine", "docker.io", "docker-ce")
EDGE = "aziot-edge"
MODULE_ID = 10001  # user and group of Edgeclave's containers
GROUP = "edgeclave"
DEVICES = {  # udev's kernel names; a container gets a device with the owner and mode that it has outside
    "sgx": ("sgx_enclave", "sgx_provision"),
    "tdx": ("tdx_guest",),
    "sev-snp": ("sev-guest",),
    "optee": ("tee[0-9]*",),
    "tpm": ("tpmrm[0-9]*",),
}
USERS_OF_DEVICES = ("tss", "aziottpm", "aesmd", "tee")  # they had the devices before and must not lose them
LOG_OPTIONS = {"log-driver": "local", "log-opts": {"max-size": "10m", "max-file": "3"}}
MARK = "# Written by Edgeclave's set_up.py: change its parameters, not this file."
DPS = "https://global.azure-devices-provisioning.net"
CERTIFICATE = "/var/aziot/certs/edgeclave-registration.pem"
PRIVATE_KEY = "/var/aziot/secrets/edgeclave-registration.key.pem"


@dataclass
class Step:
    """One thing that shall be so. `missing` says what is not; `do` makes it so, None when only a person can."""

    name: str
    missing: Callable[[], str | None]
    advice: str
    do: Callable[[], None] | None = None


class Gateway:
    """All steps, in the order in which they are done."""

    def __init__(self, machine: Machine, options: argparse.Namespace) -> None:
        self._machine = machine
        self._options = options
        self._config = wanted_config(options)

    def steps(self) -> list[Step]:
        package = "give --package-source FILE, or set up an apt source that has it (Microsoft's page says which)"
        return [
            Step("operating system", self._system, "use Debian 12, Ubuntu 22.04 or Ubuntu 24.04, on amd64 or arm64"),
            Step(
                "clock", self._clock, "sudo timedatectl set-ntp true; tokens and certificates need it", self._set_clock
            ),
            Step("container engine", self._engine, package, self._install_engine),
            Step(
                "limits for containers' logs",
                self._engine_logs,
                "run this program as root without --check",
                self._limit_engine_logs,
            ),
            Step(
                "limit for the journal", self._journal, "run this program as root without --check", self._limit_journal
            ),
            Step("IoT Edge", self._edge, package, self._install_edge),
            Step("TEE devices", self._devices, "run this program with --tee, as root", self._give_devices),
            Step("config.toml", self._configuration, "give --id-scope, --registration-id and a key", self._configure),
            Step("services", self._services, "sudo iotedge system status, sudo iotedge system logs", self._apply),
        ]

    def _system(self) -> str | None:
        release = dict(line.split("=", 1) for line in self._machine.read("/etc/os-release").splitlines() if "=" in line)
        found = release.get("ID", "?").strip('"'), release.get("VERSION_ID", "?").strip('"')
        return None if found in SYSTEMS else f"this is {found[0]} {found[1]}"

    def _clock(self) -> str | None:
        if not self._machine.real:
            return None
        said = self._machine.run("timedatectl", "show", "--property=NTPSynchronized", "--value").strip()
        if said == "yes":
            return None
        return "it is not synchronised" if said else "whether it is synchronised cannot be found out: no timedatectl"

    def _set_clock(self) -> None:
        if not self._machine.installed(("systemd-timesyncd", "chrony", "ntpsec")):
            self._machine.run("apt-get", "install", "--yes", "systemd-timesyncd")
        self._machine.run("timedatectl", "set-ntp", "true")

    def _engine(self) -> str | None:
        return None if self._machine.installed(ENGINES) else f"none of {', '.join(ENGINES)} is installed"

    def _install_engine(self) -> None:
        self._install(ENGINES[:2])

    def _edge(self) -> str | None:
        return None if self._machine.installed((EDGE,)) else f"{EDGE} is not installed"

    def _install_edge(self) -> None:
        self._install((EDGE,))

    def _install(self, names: tuple[str, ...]) -> None:
        """The first of these that apt has, from the operator's own sources."""
        source = self._options.package_source
        if source is not None and source.suffix == ".deb":
            self._machine.run("apt-get", "install", "--yes", str(source.absolute()))
        elif source is not None:
            self._machine.write(f"/etc/apt/sources.list.d/{source.name}", source.read_text(encoding="utf-8"))
        self._machine.run("apt-get", "update")
        for name in names:
            policy = self._machine.run("apt-cache", "policy", name)
            if re.search(r"Candidate: (?!\(none\))\S", policy):
                self._machine.run("apt-get", "install", "--yes", name)
                return
        if self._machine.real:
            raise Refused(f"no apt source here has {' or '.join(names)}")

    def _engine_logs(self) -> str | None:
        settings = self._engine_settings()
        return None if settings.get("log-driver") else "containers' logs grow without a limit"

    def _limit_engine_logs(self) -> None:
        text = json.dumps({**self._engine_settings(), **LOG_OPTIONS}, indent=2)
        self._machine.write("/etc/docker/daemon.json", f"{text}\n")
        self._machine.run("systemctl", "try-reload-or-restart", "docker")

    def _engine_settings(self) -> dict[str, object]:
        try:
            settings = json.loads(self._machine.read("/etc/docker/daemon.json") or "{}")
        except ValueError as error:
            raise Refused(f"/etc/docker/daemon.json is not JSON: {error}") from None
        if not isinstance(settings, dict):
            raise Refused("/etc/docker/daemon.json is not a JSON object")
        return settings

    def _journal(self) -> str | None:
        folder = "/etc/systemd/journald.conf.d"
        names = [f"{folder}/{path.name}" for path in sorted(self._machine.path(folder).glob("*.conf"))]
        texts = [self._machine.read(name) for name in (*names, "/etc/systemd/journald.conf")]
        limited = any(re.search(r"^SystemMaxUse=", text, re.MULTILINE) for text in texts)
        return None if limited else "the journal may take 10 % of the disk"

    def _limit_journal(self) -> None:
        self._machine.write("/etc/systemd/journald.conf.d/edgeclave.conf", "[Journal]\nSystemMaxUse=500M\n")
        self._machine.run("systemctl", "restart", "systemd-journald")

    def _devices(self) -> str | None:
        """What was asked for; without that, what is there and closed to our containers."""
        wanted = wanted_rules(self._options.tee)
        has = self._machine.read(f"/etc/udev/rules.d/90-{GROUP}.rules")
        if wanted and has != wanted:
            return f"group {GROUP} ({MODULE_ID}) does not have the devices of {', '.join(self._options.tee)}"
        closed = [str(path) for kind in DEVICES for path in self._nodes(kind) if not _open_to_modules(path)]
        if closed and not has:
            return f"there are {', '.join(closed)}, which containers of Edgeclave cannot open"
        return None

    def _give_devices(self) -> None:
        if not self._options.tee:
            raise Refused("which TEE shall be used is for you to say: --tee")
        groups = self._machine.read("/etc/group")
        if not re.search(rf"^{GROUP}:", groups, re.MULTILINE):
            self._machine.run("groupadd", "--system", "--gid", str(MODULE_ID), GROUP)
        passwords = self._machine.read("/etc/passwd")
        for user in USERS_OF_DEVICES:
            if re.search(rf"^{user}:", passwords, re.MULTILINE):
                self._machine.run("usermod", "--append", "--groups", GROUP, user)
        self._machine.write(f"/etc/udev/rules.d/90-{GROUP}.rules", wanted_rules(self._options.tee))
        self._machine.run("udevadm", "control", "--reload")
        self._machine.run(
            "udevadm", "trigger", "--subsystem-match=misc", "--subsystem-match=tpmrm", "--subsystem-match=tee"
        )
        self._machine.run("udevadm", "settle")

    def _nodes(self, kind: str) -> list[Path]:
        folder = self._machine.path("/dev")
        return sorted(path for pattern in DEVICES[kind] for path in folder.glob(pattern))

    def _configuration(self) -> str | None:
        has = self._machine.read("/etc/aziot/config.toml")
        if not has:
            return "there is no /etc/aziot/config.toml"
        if self._machine.mode("/etc/aziot/config.toml") & 0o077:
            return "/etc/aziot/config.toml can be read by others: it may hold the device's key"
        for name in re.findall(r'"file://([^"]+)"', has):
            if not self._machine.path(name).is_file():
                return f"{name}, which /etc/aziot/config.toml names, is not there"
        if self._config is not None and has != self._config:
            return "/etc/aziot/config.toml is for another registration"
        if not re.search(r'^\s*source\s*=\s*"(dps|manual)"', has, re.MULTILINE):
            return "/etc/aziot/config.toml names no provisioning"
        return None

    def _configure(self) -> None:
        has = self._machine.read("/etc/aziot/config.toml")
        if self._config is None:
            if has:
                self._machine.path("/etc/aziot/config.toml").chmod(0o600)
                return
            raise Refused("--id-scope, --registration-id and a key were not given")
        if has and not has.startswith(MARK):
            raise Refused("/etc/aziot/config.toml was written by somebody else: move it away first")
        options = self._options
        if options.certificate is not None:
            self._machine.write(CERTIFICATE, options.certificate.read_text(), owner="aziotcs")
            self._machine.write(PRIVATE_KEY, options.private_key.read_text(), mode=0o600, owner="aziotks")
        self._machine.write("/etc/aziot/config.toml", self._config, mode=0o600)
        self._machine.run("iotedge", "config", "apply")

    def _services(self) -> str | None:
        if not self._machine.real:
            return None
        down = [
            name
            for name in ("docker", "aziot-edged")
            if self._machine.run("systemctl", "is-active", name).strip() != "active"
        ]
        return f"{' and '.join(down)} not running" if down else None

    def _apply(self) -> None:
        self._machine.run("systemctl", "start", "docker")
        self._machine.run("iotedge", "config", "apply")


def wanted_config(options: argparse.Namespace) -> str | None:
    """The whole config.toml, or None when no registration was given.

    Raises:
        binascii.Error, UnicodeDecodeError: the symmetric key is none.
    """
    if options.registration_id is None:
        return None
    if options.certificate is not None:
        identity = (
            f'method = "x509"\n{{}}identity_cert = "file://{CERTIFICATE}"\nidentity_pk = "file://{PRIVATE_KEY}"\n'
        )
    else:
        key = options.symmetric_key_file.read_text(encoding="ascii").strip()
        if not base64.b64decode(key, validate=True):
            raise binascii.Error("empty")
        identity = f'method = "symmetric_key"\n{{}}symmetric_key = {{{{ value = "{key}" }}}}\n'
    return (
        f'{MARK}\n\n[provisioning]\nsource = "dps"\nglobal_endpoint = {json.dumps(options.global_endpoint)}\n'
        f"id_scope = {json.dumps(options.id_scope)}\n\n[provisioning.attestation]\n"
        + identity.format(f"registration_id = {json.dumps(options.registration_id)}\n")
    )


def wanted_rules(kinds: list[str]) -> str:
    """udev rules that give the devices of these TEEs to our containers' group."""
    names = [name for kind in kinds for name in DEVICES[kind]]
    return "".join(f'KERNEL=="{name}", GROUP="{GROUP}", MODE="0660"\n' for name in names)


def _open_to_modules(path: Path) -> bool:
    status = path.stat()
    return bool(status.st_mode & 0o006 == 0o006 or (status.st_gid == MODULE_ID and status.st_mode & 0o060 == 0o060))
