"""What $edgeHub reports of itself in its twin: its clients, and which desired properties it works with.

As edgeHub does: a module that leaves stays in `clients` as Disconnected, a device of its own is taken out, and the list
starts empty with each start. The edge agent is connected to IoT Hub itself and is no client.
"""

from __future__ import annotations

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
_NOT_IN_A_KEY = re.compile(r"[.$ ]")
_log = logger("edge-hub")


class EdgeHubReport:
    """Follows the hub's connections and desired properties from `start` on."""

    def __init__(self, hub: EdgeHub, device_id: str) -> None:
        self._hub = hub
        self._name = IdentityName(device_id, EDGE_HUB)
        self._agent = IdentityName(device_id, EDGE_AGENT)

    def start(self) -> None:
        reported = self._hub.twins.at_edge(self._name).reported
        fresh = {"schemaVersion": SCHEMA_VERSION, "clients": {}, **self._desired()}
        if changed := difference(reported, fresh):
            self._report(changed)
        self._hub.twins.on_desired.append(self._desired_changed)
        self._hub.links.on_change.append(self._link_changed)

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
        """A report that cannot be stored is only missing from the twin; connections do not depend on it."""
        try:
            self._hub.twins.patch_reported(self._name, patch)
        except (HubError, StoreError) as error:
            _log.warning("cannot report on $edgeHub", reason=str(error))


def _key(name: IdentityName) -> str:
    """A client's name as edgeHub encodes it for a twin."""
    return _NOT_IN_A_KEY.sub(lambda match: f"%{ord(match[0]):02X}", str(name))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
