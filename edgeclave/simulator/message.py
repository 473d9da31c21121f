"""A message as modules send and get it: body, application properties, system properties in MQTT's short names.

Property bags stand in the MQTT topic as `%24.mid=..&key=value`. System properties start with `$.`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from edgeclave.simulator.hub_errors import bad_request

MAX_BODY_BYTES = 256 * 1024  # IoT Hub's limit for a device-to-cloud message
MAX_PROPERTIES = 100
MAX_PROPERTY_BAG_CHARACTERS = 16 * 1024

OUTPUT, CONNECTION_DEVICE, CONNECTION_MODULE = "$.on", "$.cdid", "$.cmid"
# MQTT short name -> IoT Hub's name in the event's system properties
SYSTEM_NAMES = {
    "$.mid": "message-id",
    "$.cid": "correlation-id",
    "$.uid": "user-id",
    "$.ct": "content-type",
    "$.ce": "content-encoding",
    "$.ctime": "iothub-creation-time-utc",
    "$.ifid": "iothub-interface-id",
    "$.sub": "dt-subject",
    "$.exp": "absolute-expiry-time",
}
# name in a route's condition -> MQTT short name
_CONDITION_NAMES = {
    "messageid": "$.mid",
    "correlationid": "$.cid",
    "userid": "$.uid",
    "contenttype": "$.ct",
    "contentencoding": "$.ce",
    "outputname": OUTPUT,
    "connectiondeviceid": CONNECTION_DEVICE,
    "connectionmoduleid": CONNECTION_MODULE,
}


@dataclass(frozen=True)
class Message:
    """`system` has MQTT short names as keys."""

    body: bytes
    properties: Mapping[str, str] = field(default_factory=dict)
    system: Mapping[str, str] = field(default_factory=dict)

    def resolve(self, name: str) -> Any:
        """A property for a route's condition: `name`, `$systemName` or `$body.path`; None when undefined."""
        if not name.startswith("$"):
            return self.properties.get(name)
        if name == "$body" or name.startswith(("$body.", "$body[")):
            return self._from_body(name)
        return self.system.get(_CONDITION_NAMES.get(name[1:].lower(), name))

    def _from_body(self, path: str) -> Any:
        """As IoT Hub: only bodies that say they are JSON can be asked."""
        if "json" not in self.system.get("$.ct", "").lower():
            return None
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        for part in path.split(".")[1:]:
            value = value.get(part) if isinstance(value, dict) else None
        return value


def decode_properties(bag: str) -> tuple[dict[str, str], dict[str, str]]:
    """(application properties, system properties) of the end of a topic.

    Raises:
        HubError: 400 for too many or too long.
    """
    if len(bag) > MAX_PROPERTY_BAG_CHARACTERS:
        raise bad_request("the message's properties are over their limit")
    properties: dict[str, str] = {}
    system: dict[str, str] = {}
    for part in bag.strip("/").split("&"):
        if part:
            name, _, value = part.partition("=")
            name = unquote(name)
            (system if name.startswith("$.") else properties)[name] = unquote(value)
    if len(properties) + len(system) > MAX_PROPERTIES:
        raise bad_request(f"a message has at most {MAX_PROPERTIES} properties")
    return properties, system


def encode_properties(properties: Mapping[str, str], system: Mapping[str, str]) -> str:
    """The inverse of `decode_properties`."""
    return "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in {**system, **properties}.items()
    )
