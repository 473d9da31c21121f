"""Devices and modules the hub knows: keys, generation ids, and each module's own loopback address."""

from __future__ import annotations

import base64
import re
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from edgeclave.simulator.credentials import NEW_KEYS, SAS, Credentials, usable_key
from edgeclave.simulator.hub_errors import HubError, bad_request
from edgeclave.simulator.store import Store

DEVICE_ID = "edge01"  # of the edge device that the simulator runs
MAX_ID_CHARACTERS = 128  # IoT Hub's limit for device and module ids
MAX_MODULES_PER_DEVICE = 50  # IoT Hub's limit
SYSTEM_MODULES = ("$edgeAgent", "$edgeHub")  # every edge device has them
FIRST_MODULE_OCTET, LAST_MODULE_OCTET = 10, 254  # modules get 127.a.b.10 and up
_ID = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@$']+")


class IdentityName(NamedTuple):
    """Device id and module id; the module id is empty for the device itself."""

    device_id: str
    module_id: str = ""

    def __str__(self) -> str:
        return f"{self.device_id}/{self.module_id}" if self.module_id else self.device_id

    @classmethod
    def parse(cls, client_id: str) -> IdentityName:
        """From an MQTT client id or x-ms-edge-moduleId: `device` or `device/module`."""
        device_id, _, module_id = client_id.partition("/")
        return cls(device_id, module_id)


@dataclass(frozen=True)
class HubIdentity:
    """One row of the identity registry. Keys are base64; `address` is empty for devices and system modules."""

    name: IdentityName
    primary_key: str
    secondary_key: str
    generation_id: str
    version: int
    enabled: bool
    iot_edge: bool
    managed_by: str
    address: str
    authentication: str = SAS
    primary_thumbprint: str = ""
    secondary_thumbprint: str = ""
    status_reason: str = ""

    @property
    def thumbprints(self) -> tuple[str, ...]:
        return tuple(each.upper() for each in (self.primary_thumbprint, self.secondary_thumbprint) if each)

    @property
    def keys(self) -> tuple[str, str]:
        return self.primary_key, self.secondary_key

    @property
    def etag(self) -> str:
        return base64.b64encode(str(self.version).encode()).decode()

    def resource(self, host: str) -> str:
        """What a shared access signature of this identity must name."""
        module = f"/modules/{self.name.module_id}" if self.name.module_id else ""
        return f"{host}/devices/{self.name.device_id}{module}"


Listener = Callable[[HubIdentity], None]


class Identities:
    """The identity registry. Writes join the store's current group; listeners run after the commit."""

    def __init__(self, store: Store, block: str, own_device: str = DEVICE_ID) -> None:
        """`block` is the simulator's /24, as "127.a.b"; `own_device` is the edge device that runs here."""
        self._store = store
        self._block = block
        self._own_device = own_device
        self.on_created: list[Listener] = []
        self.on_deleted: list[Listener] = []
        self.on_disabled: list[Listener] = []

    def find(self, name: IdentityName) -> HubIdentity | None:
        row = self._store.connection.execute(
            "SELECT * FROM identities WHERE device_id = ? AND module_id = ?", name
        ).fetchone()
        return _identity(row) if row else None

    def get(self, name: IdentityName) -> HubIdentity:
        """Raises HubError 404 `DeviceNotFound` or `ModuleNotFound`."""
        identity = self.find(name)
        if identity is None:
            kind = "ModuleNotFound" if name.module_id else "DeviceNotFound"
            raise HubError(404, kind, f"there is no {'module' if name.module_id else 'device'} {name}")
        return identity

    def devices(self) -> list[HubIdentity]:
        rows = self._store.connection.execute("SELECT * FROM identities WHERE module_id = '' ORDER BY device_id")
        return [_identity(row) for row in rows]

    def modules(self, device_id: str | None = None) -> list[HubIdentity]:
        """Modules of one device, or of all."""
        rows = self._store.connection.execute(
            "SELECT * FROM identities WHERE module_id != '' AND (:device IS NULL OR device_id = :device)"
            " ORDER BY device_id, module_id",
            {"device": device_id},
        )
        return [_identity(row) for row in rows]

    def create(
        self,
        name: IdentityName,
        credentials: Credentials = NEW_KEYS,
        *,
        iot_edge: bool = False,
        managed_by: str = "",
        enabled: bool = True,
        status_reason: str = "",
    ) -> HubIdentity:
        """Adds an identity with an empty twin, keys where none are given, and agent and hub to an edge device.

        Raises:
            HubError: 400 for a bad id or key, 404 without its device, 409 `DeviceAlreadyExists`, 403 at the limit.
        """
        _check_id(name.device_id, "device id")
        if name.module_id:
            _check_id(name.module_id, "module id")
            self.get(IdentityName(name.device_id))
            if len(self.modules(name.device_id)) >= MAX_MODULES_PER_DEVICE:
                raise HubError(403, "QuotaExceeded", f"a device has at most {MAX_MODULES_PER_DEVICE} modules")
        if self.find(name) is not None:
            kind = "ModuleAlreadyExists" if name.module_id else "DeviceAlreadyExists"
            raise HubError(409, kind, f"{name} exists already")
        credentials.check()
        identity = HubIdentity(
            name,
            usable_key(credentials.primary_key),
            usable_key(credentials.secondary_key),
            str(time.time_ns() // 100),
            version=1,
            enabled=enabled,
            iot_edge=iot_edge,
            managed_by=managed_by,
            address=self._new_address(name),
            authentication=credentials.kind,
            primary_thumbprint=credentials.primary_thumbprint,
            secondary_thumbprint=credentials.secondary_thumbprint,
            status_reason=status_reason,
        )
        with self._store.write():
            self._insert(identity)
            if iot_edge and not name.module_id:
                self._create_system_modules(name.device_id)
        self._announce(self.on_created, identity)
        return identity

    def update(
        self,
        name: IdentityName,
        credentials: Credentials = NEW_KEYS,
        *,
        iot_edge: bool = False,
        managed_by: str | None = None,
        enabled: bool = True,
        status_reason: str = "",
        if_match: str = "*",
    ) -> HubIdentity:
        """`iot_edge` makes an edge device of another one; an edge device stays one.

        Raises:
            HubError: 404, 400 for bad credentials, 412 when the etag is not the current one.
        """
        current = self.get(name)
        _check_etag(current, if_match)
        credentials.check()
        keys = (
            usable_key(credentials.primary_key or current.primary_key),
            usable_key(credentials.secondary_key or current.secondary_key),
        )
        proof = (credentials.kind, credentials.primary_thumbprint, credentials.secondary_thumbprint)
        becomes_edge = iot_edge and not current.iot_edge and not name.module_id
        manager = current.managed_by if managed_by is None else managed_by
        with self._store.write() as connection:
            connection.execute(
                "UPDATE identities SET primary_key = ?, secondary_key = ?, authentication = ?, primary_thumbprint = ?,"
                " secondary_thumbprint = ?, enabled = ?, status_reason = ?, iot_edge = ?, managed_by = ?,"
                " version = version + 1 WHERE device_id = ? AND module_id = ?",
                (*keys, *proof, enabled, status_reason, current.iot_edge or becomes_edge, manager, *name),
            )
            if becomes_edge:
                self._create_system_modules(name.device_id)
        updated = self.get(name)
        if not enabled:
            self._announce(self.on_disabled, updated)
        return updated

    def delete(self, name: IdentityName, *, if_match: str = "*") -> None:
        """Deletes with twin, subscriptions and waiting inputs; a device takes its modules with it.

        Raises:
            HubError: 400 for a system module, 404, 412.
        """
        identity = self.get(name)
        if name.module_id in SYSTEM_MODULES:
            raise bad_request(f"{name.module_id} is a system module: it goes with its device only")
        _check_etag(identity, if_match)
        gone = [identity] if name.module_id else [*self.modules(name.device_id), identity]
        with self._store.write() as connection:
            for each in gone:
                connection.execute("DELETE FROM identities WHERE device_id = ? AND module_id = ?", each.name)
        for each in gone:
            self._announce(self.on_deleted, each)

    def _create_system_modules(self, device_id: str) -> None:
        for module_id in SYSTEM_MODULES:
            self.create(IdentityName(device_id, module_id), managed_by="IotEdge")

    def _insert(self, identity: HubIdentity) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self._store.write() as connection:
            connection.execute(
                "INSERT INTO identities VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *identity.name,
                    identity.primary_key,
                    identity.secondary_key,
                    identity.generation_id,
                    identity.version,
                    identity.enabled,
                    identity.iot_edge,
                    identity.managed_by,
                    identity.address,
                    identity.authentication,
                    identity.primary_thumbprint,
                    identity.secondary_thumbprint,
                    identity.status_reason,
                ),
            )
            connection.execute(
                "INSERT INTO twins VALUES (?, ?, '{}', '{}', '{}', 1, 1, 1, 1, ?, ?, '{}', '{}')",
                (*identity.name, now, now),
            )

    def _new_address(self, name: IdentityName) -> str:
        """Only modules of the simulator's own device run here; those of other devices need no address."""
        if not name.module_id or name.module_id.startswith("$") or name.device_id != self._own_device:
            return ""
        taken = {identity.address for identity in self.modules()}
        for octet in range(FIRST_MODULE_OCTET, LAST_MODULE_OCTET + 1):
            address = f"{self._block}.{octet}"
            if address not in taken:
                return address
        raise HubError(403, "QuotaExceeded", "every loopback address of this simulator is taken by a module")

    def _announce(self, listeners: list[Listener], identity: HubIdentity) -> None:
        self._store.after_commit(lambda error: None if error else _call(listeners, identity))


def _call(listeners: list[Listener], identity: HubIdentity) -> None:
    for listener in listeners:
        listener(identity)


def _identity(row: sqlite3.Row) -> HubIdentity:
    return HubIdentity(
        IdentityName(row["device_id"], row["module_id"]),
        row["primary_key"],
        row["secondary_key"],
        row["generation_id"],
        row["version"],
        bool(row["enabled"]),
        bool(row["iot_edge"]),
        row["managed_by"],
        row["address"],
        row["authentication"],
        row["primary_thumbprint"],
        row["secondary_thumbprint"],
        row["status_reason"],
    )


def _check_id(value: str, what: str) -> None:
    if not value or len(value) > MAX_ID_CHARACTERS or not _ID.fullmatch(value):
        raise bad_request(
            f"{value[:MAX_ID_CHARACTERS]!r} is not a {what}",
            advice=f"use up to {MAX_ID_CHARACTERS} ASCII letters, digits and -:.+%_#*?!(),=@$'",
        )


def _check_etag(identity: HubIdentity, if_match: str) -> None:
    if if_match not in ("*", identity.etag):
        raise HubError(412, "PreconditionFailed", f"the etag of {identity.name} is not the one given")
