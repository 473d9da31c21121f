"""A simulator's state directory: database, certificates, module data and logs; one process at a time.

state.sqlite    the hub and edgeHub: identities, twins, queues, message log
pki/            root-ca.pem is what clients trust
data/<module>/  each module's own EDGECLAVE_STATE
env/            environments of modules that were taken over
logs/           one file per module, and the simulator's own
config/         the generated deployment manifest
runtime.json    while the simulator runs: where it is
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeclave.errors import ConfigurationError
from edgeclave.simulator.edge_hub import EDGE_HUB
from edgeclave.simulator.identities import HubIdentity, Identities, IdentityName
from edgeclave.simulator.pki import Pki
from edgeclave.simulator.settings import Settings, load_settings
from edgeclave.simulator.store import Store
from edgeclave.simulator.twins import Twins
from edgeclave.simulator.workload.sockets import socket_path

LOCK_SECONDS = 2.0  # longer than `sim env` and `sim connection-string` need the state of a simulator that is not up
WORKLOAD_API_VERSION = "2020-07-07"
_FIRST_ROUTES = {"schemaVersion": "1.2", "routes": {"everything": "FROM /messages/* INTO $upstream"}}


def unusable(directory: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        "state-directory-unusable",
        f"the simulator's state directory cannot be used: {error.strerror}",
        where=str(directory),
        advice="name another one with --state",
    )


class SimulatorState:
    """Opens (and at first makes) a state directory and holds its lock until `close`.

    Raises:
        ConfigurationError: `simulator-running`, `state-directory-unusable`, or what is wrong with its files.
        StoreError: the database cannot be opened.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise unusable(directory, error) from error
        if not _locked(self._lock):
            os.close(self._lock)
            raise _running(directory)
        try:
            self.store = Store(self.directory / "state.sqlite")
            self.settings: Settings = load_settings(self.store)
            self.identities = Identities(self.store, self.settings.block)
            self.twins = Twins(self.store)
            self.pki = Pki(self.directory / "pki")
            self._make_device()
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        self.store.close()
        os.close(self._lock)

    def module(self, module_id: str) -> HubIdentity:
        """The module's identity, made and stored if it is missing.

        Raises:
            HubError: it cannot be made.
        """
        name = IdentityName(self.settings.device_id, module_id)
        identity = self.identities.find(name)
        if identity is None:
            identity = self.identities.create(name)
            self.store.commit()
        return identity

    def _make_device(self) -> None:
        device = IdentityName(self.settings.device_id)
        if self.identities.find(device) is not None:
            return
        with self.store.write():
            self.identities.create(device, iot_edge=True)
            self.twins.update(IdentityName(device.device_id, EDGE_HUB), desired=_FIRST_ROUTES)
        self.store.commit()


def _locked(descriptor: int) -> bool:
    """Whether the lock was had. Commands that look at the state hold it for a moment: they are waited for."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def start_over(directory: Path) -> None:
    """Removes what earlier runs left in a state directory, and nothing that is not the simulator's.

    Raises:
        ConfigurationError: `simulator-running`, `state-directory-unusable`.
    """
    with _opened(directory / "lock") as descriptor:
        if descriptor is None:  # never a state directory: nothing here is ours
            return
        if not _locked(descriptor):
            raise _running(directory)
        try:
            for path in directory.glob("state.sqlite*"):
                path.unlink()
            for name in ("pki", "data", "env", "logs", "config"):
                if (directory / name).exists():
                    shutil.rmtree(directory / name)
            (directory / "runtime.json").unlink(missing_ok=True)
        except OSError as error:
            raise ConfigurationError(
                "state-directory-unusable", f"cannot be emptied: {error}", where=str(directory)
            ) from error


def is_running(directory: Path) -> bool:
    """Whether some process holds the state directory."""
    with _opened(directory / "lock") as descriptor:
        if descriptor is None:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


def edge_environment(settings: Settings, *, module_id: str, generation_id: str, workload_uri: str) -> dict[str, str]:
    """What edgeAgent gives every module, whether it runs as a process or in a container."""
    return {
        "IOTEDGE_WORKLOADURI": workload_uri,
        "IOTEDGE_IOTHUBHOSTNAME": settings.hub_host,
        "IOTEDGE_GATEWAYHOSTNAME": settings.gateway,
        "IOTEDGE_DEVICEID": settings.device_id,
        "IOTEDGE_MODULEID": module_id,
        "IOTEDGE_MODULEGENERATIONID": generation_id,
        "IOTEDGE_APIVERSION": WORKLOAD_API_VERSION,
        "IOTEDGE_AUTHSCHEME": "sasToken",
    }


def module_environment(
    directory: Path, settings: Settings, *, module_id: str, generation_id: str, address: str
) -> dict[str, str]:
    """With what makes free ports and loopback addresses work without Docker."""
    data = directory.absolute() / "data" / module_id
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    uri = f"unix://{socket_path(directory, module_id)}"
    return {
        **edge_environment(settings, module_id=module_id, generation_id=generation_id, workload_uri=uri),
        "mqtt_proxy": settings.proxy_url,
        "https_proxy": settings.proxy_url,
        "EDGECLAVE_STATE": str(data),
        "EDGECLAVE_LISTEN": address,
    }


def _running(directory: Path) -> ConfigurationError:
    return ConfigurationError(
        "simulator-running",
        "a simulator is already running on this state directory",
        where=str(directory),
        advice="stop it, or name another directory with --state",
    )


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
