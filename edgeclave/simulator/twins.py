"""Device and module twins on disk: versions, etags, patches; tells listeners about desired changes after the commit.

While a device is cut off from IoT Hub each side sees the other's last known properties: the hub old reported ones, the
device old desired ones. The table `outage_twins` holds those old sections, the twin itself what both sides wrote.
"""

from __future__ import annotations

import base64
import json
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgeclave.deployment.twin_limits import MAX_PROPERTIES_BYTES, MAX_TAGS_BYTES
from edgeclave.edge.store import StoreError
from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.store import Store
from edgeclave.simulator.twin_document import (
    Section,
    check,
    check_size,
    difference,
    dump,
    merge,
    stamped,
    without_metadata,
)

_SectionName = Literal["desired", "reported"]


@dataclass(frozen=True)
class Twin:
    """One twin as stored. `etag_number` counts changes of tags and desired properties, `version` all changes."""

    name: IdentityName
    desired: Section
    reported: Section
    tags: Section
    desired_version: int
    reported_version: int
    etag_number: int
    version: int
    desired_updated: str
    reported_updated: str
    desired_metadata: Section
    reported_metadata: Section

    @property
    def etag(self) -> str:
        return base64.b64encode(struct.pack(">Q", self.etag_number)).decode()

    def for_module(self) -> dict[str, Any]:
        """What the client gets over MQTT."""
        return {
            "desired": {**self.desired, "$version": self.desired_version},
            "reported": {**self.reported, "$version": self.reported_version},
        }

    def for_service(self) -> dict[str, Any]:
        """The `properties` of the service REST document."""
        return {
            "desired": {
                **self.desired,
                "$metadata": {**_stamp(self.desired_updated, self.desired_version), **self.desired_metadata},
                "$version": self.desired_version,
            },
            "reported": {
                **self.reported,
                "$metadata": {**_stamp(self.reported_updated), **self.reported_metadata},
                "$version": self.reported_version,
            },
        }


@dataclass(frozen=True)
class DesiredChange:
    """A patch of desired properties (null removes) and the version that has it."""

    name: IdentityName
    patch: Section
    version: int


class Twins:
    """All twins. Writes join the store's current group.

    `validators` may refuse new desired properties (edgeHub does so for bad routes) before anything is stored.
    `on_changed` hears of every change, `on_desired` of those of desired properties; both after the commit.
    `cut_off` tells whether a device cannot reach the hub now.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.validators: list[Callable[[IdentityName, Section], None]] = []
        self.on_desired: list[Callable[[DesiredChange], None]] = []
        self.on_changed: list[Callable[[IdentityName], None]] = []
        self.cut_off: Callable[[IdentityName], bool] = lambda _name: False

    def get(self, name: IdentityName) -> Twin:
        """As IoT Hub sees it. Raises HubError 404."""
        return self._overlaid(self._both(name), "reported")

    def at_edge(self, name: IdentityName) -> Twin:
        """As the device sees it. Raises HubError 404."""
        return self._overlaid(self._both(name), "desired")

    def reconnect(self, device_id: str) -> None:
        """Both sides of a device's twins see all again; listeners get the desired changes that it missed.

        Raises:
            StoreError: nothing has changed.
        """
        names = [
            IdentityName(*row)
            for row in self._store.connection.execute(
                "SELECT DISTINCT device_id, module_id FROM outage_twins WHERE device_id = ?", (device_id,)
            )
        ]
        changes = []
        for name in names:
            twin = self._both(name)
            patch = difference(self.at_edge(name).desired, twin.desired)
            if patch:
                changes.append(DesiredChange(name, patch, twin.desired_version))
        with self._store.write() as connection:
            connection.execute("DELETE FROM outage_twins WHERE device_id = ?", (device_id,))
            for change in changes:
                self._announce_after_commit(change)
            for name in names:  # conditions see their reported properties again
                self._announce_change(name)

    def _both(self, name: IdentityName) -> Twin:
        row = self._store.connection.execute(
            "SELECT * FROM twins WHERE device_id = ? AND module_id = ?", name
        ).fetchone()
        if row is None:
            raise HubError(404, "ModuleNotFound" if name.module_id else "DeviceNotFound", f"there is no {name}")
        return Twin(
            name,
            json.loads(row["desired"]),
            json.loads(row["reported"]),
            json.loads(row["tags"]),
            row["desired_version"],
            row["reported_version"],
            row["etag"],
            row["version"],
            row["desired_updated"],
            row["reported_updated"],
            json.loads(row["desired_metadata"]),
            json.loads(row["reported_metadata"]),
        )

    def patch_reported(self, name: IdentityName, patch: object) -> int:
        """Merges and returns the new version. Raises HubError 400 for what Azure would refuse."""
        where = "properties.reported"
        clean = without_metadata(patch, where)
        check(clean, where)
        twin = self._both(name)
        reported = merge(twin.reported, clean)
        check_size(reported, MAX_PROPERTIES_BYTES, where)
        now = _now()
        metadata = stamped(twin.reported_metadata, clean, _stamp(now))
        with self._store.write() as connection:
            self._keep_if_cut_off(twin, "reported")
            connection.execute(
                "UPDATE twins SET reported = ?, reported_version = reported_version + 1, version = version + 1,"
                " reported_updated = ?, reported_metadata = ? WHERE device_id = ? AND module_id = ?",
                (dump(reported), now, dump(metadata), *name),
            )
        self._announce_change(name)
        return twin.reported_version + 1

    def update(
        self,
        name: IdentityName,
        *,
        desired: object = None,
        tags: object = None,
        replace: bool = False,
        if_match: str = "*",
    ) -> Twin:
        """Patches or replaces what the service side owns; None leaves a section alone.

        Raises:
            HubError: 404, 412 for a stale etag, 400 for what Azure would refuse.
        """
        twin = self.get(name)
        if if_match not in ("*", twin.etag):
            raise HubError(412, "PreconditionFailed", f"the twin of {name} has changed: its etag is not the one given")
        new_desired = (
            twin.desired if desired is None else _changed(twin.desired, desired, "properties.desired", replace)
        )
        new_tags = twin.tags if tags is None else _changed(twin.tags, tags, "tags", replace)
        check_size(new_desired, MAX_PROPERTIES_BYTES, "properties.desired")
        check_size(new_tags, MAX_TAGS_BYTES, "tags")
        for validate in self.validators:
            validate(name, new_desired)
        self._store_update(twin, new_desired, new_tags)
        return self.get(name)

    def _store_update(self, twin: Twin, desired: Section, tags: Section) -> None:
        patch = difference(twin.desired, desired)
        if not patch and tags == twin.tags:
            return
        version, updated, metadata = twin.desired_version, twin.desired_updated, twin.desired_metadata
        if patch:
            version, updated = version + 1, _now()
            metadata = stamped(metadata, patch, _stamp(updated, version))
        with self._store.write() as connection:
            if patch:
                self._keep_if_cut_off(twin, "desired")
            connection.execute(
                "UPDATE twins SET desired = ?, tags = ?, desired_version = ?, etag = etag + 1, version = version + 1,"
                " desired_updated = ?, desired_metadata = ? WHERE device_id = ? AND module_id = ?",
                (dump(desired), dump(tags), version, updated, dump(metadata), *twin.name),
            )
        if patch and not self.cut_off(twin.name):
            self._announce_after_commit(DesiredChange(twin.name, patch, version))
        self._announce_change(twin.name)

    def _keep_if_cut_off(self, twin: Twin, section: _SectionName) -> None:
        """What the other side last saw of a section that is about to change."""
        if self.cut_off(twin.name):
            with self._store.write() as connection:
                connection.execute(
                    "INSERT OR IGNORE INTO outage_twins VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        *twin.name,
                        section,
                        dump(getattr(twin, section)),
                        getattr(twin, f"{section}_version"),
                        getattr(twin, f"{section}_updated"),
                        dump(getattr(twin, f"{section}_metadata")),
                    ),
                )

    def _overlaid(self, twin: Twin, section: _SectionName) -> Twin:
        row = self._store.connection.execute(
            "SELECT properties, version, updated, metadata FROM outage_twins"
            " WHERE device_id = ? AND module_id = ? AND section = ?",
            (*twin.name, section),
        ).fetchone()
        if row is None:
            return twin
        kept = {section: json.loads(row["properties"]), f"{section}_version": row["version"]}
        kept |= {f"{section}_updated": row["updated"], f"{section}_metadata": json.loads(row["metadata"])}
        return replace(twin, **kept)

    def _announce_after_commit(self, change: DesiredChange) -> None:
        self._store.after_commit(lambda error: None if error else self._announce(change))

    def _announce_change(self, name: IdentityName) -> None:
        def settled(error: StoreError | None) -> None:
            if error is None:
                for listener in self.on_changed:
                    listener(name)

        if self.on_changed:
            self._store.after_commit(settled)

    def _announce(self, change: DesiredChange) -> None:
        for listener in self.on_desired:
            listener(change)


def _changed(old: Section, given: object, where: str, replace: bool) -> Section:
    clean = without_metadata(given, where)
    check(clean, where)
    return merge({} if replace else old, clean)


def _stamp(updated: str, version: int | None = None) -> Section:
    """When it was changed, and desired properties also by which version."""
    return {"$lastUpdated": updated} | ({} if version is None else {"$lastUpdatedVersion": version})


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
