"""What $edgeHub reports of itself in its twin: its clients, and which desired properties it works with.

As edgeHub does: a module that leaves stays in `clients` as Disconnected, a device of its own is taken out, and the list
starts empty with each start. The edge agent is connected to IoT Hub itself and is no client.

Reports are written a moment later and by themselves: a disk that is too full for one keeps no client out, and many
clients at once are one report.
"""

from __future__ import annotations

import asyncio
import re
import time

from edgeclave.edge.store import StoreError
from edgeclave.simulator.edge_hub import EDGE_AGENT, EDGE_HUB, EdgeHub
from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.log import logger
from edgeclave.simulator.twin_document import Section, difference
from edgeclave.simulator.twins import DesiredChange

SCHEMA_VERSION = "1.0"
DELAY_SECONDS = 0.1
RETRY_SECONDS = 5.0
_NOT_IN_A_KEY = re.compile(r"[.$ ]")
_log = logger("edge-hub")


class EdgeHubReport:
    """Follows the hub's connections and desired properties from `start` on."""

    def __init__(self, hub: EdgeHub, device_id: str) -> None:
        self._hub = hub
        self._name = IdentityName(device_id, EDGE_HUB)
        self._agent = IdentityName(device_id, EDGE_AGENT)
        self._pending: Section = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        reported = self._hub.twins.at_edge(self._name).reported
        fresh = {"schemaVersion": SCHEMA_VERSION, "clients": {}, **self._desired()}
        self._pending = difference(reported, fresh)
        self._write()
        self._hub.twins.on_desired.append(self._desired_changed)
        self._hub.links.on_change.append(self._link_changed)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _desired(self) -> Section:
        """Bad routes are refused before they are desired, so that the status is always good."""
        version = self._hub.twins.at_edge(self._name).desired_version
        return {"lastDesiredVersion": version, "lastDesiredStatus": {"code": 200, "description": ""}}

    def _desired_changed(self, change: DesiredChange) -> None:
        if change.name == self._name:
            self._report(self._desired())

    def _link_changed(self, name: IdentityName, connected: bool) -> None:
        if name in (self._name, self._agent):
            return
        client: Section | None = None
        if connected:
            client = {"status": "Connected", "lastConnectedTimeUtc": _now(), "lastDisconnectedTimeUtc": None}
        elif name.module_id:
            client = {"status": "Disconnected", "lastConnectedTimeUtc": None, "lastDisconnectedTimeUtc": _now()}
        self._report({"clients": {_key(name): client}})

    def _report(self, patch: Section) -> None:
        clients = {**self._pending.get("clients", {}), **patch.get("clients", {})}
        self._pending = {**self._pending, **patch, "clients": clients}
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY_SECONDS, self._write)

    def _write(self) -> None:
        self._timer = None
        patch, store = self._pending, self._hub.store
        if not patch or store.closed:
            return
        store.commit()  # what others have written stands or falls without this
        try:
            self._hub.twins.patch_reported(self._name, patch)
        except HubError as error:  # more clients than a twin can hold
            self._pending = {}
            _log.warning("cannot report on $edgeHub", reason=str(error))
        except StoreError as error:
            self._settled(patch, error)
        else:
            store.after_commit(lambda error: self._settled(patch, error))
            store.commit()

    def _settled(self, patch: Section, error: StoreError | None) -> None:
        if error is None:
            self._pending = {}
            return
        _log.warning("cannot report on $edgeHub yet", reason=str(error))
        self._timer = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._write)


def _key(name: IdentityName) -> str:
    """A client's name as edgeHub encodes it for a twin."""
    return _NOT_IN_A_KEY.sub(lambda match: f"%{ord(match[0]):02X}", str(name))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
