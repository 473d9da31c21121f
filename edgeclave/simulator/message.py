"""A message as modules send and get it: body, application properties, system properties in MQTT's short names.

Property bags stand in the MQTT topic as `%24.mid=..&key=value`. System properties start with `$.`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote, unquote

from edgeclave.deployment.conditions import UNDEFINED
from edgeclave.simulator.hub_errors import HubError, bad_request
from edgeclave.simulator.identities import IdentityName

MAX_BODY_BYTES = 256 * 1024  # IoT Hub's limit for a device-to-cloud message
MAX_PROPERTIES = 100
MAX_PROPERTY_BAG_CHARACTERS = 16 * 1024

OUTPUT, CONNECTION_DEVICE, CONNECTION_MODULE, SCHEMA = "$.on", "$.cdid", "$.cmid", "$.schema"
# edgeHub's own, seen by conditions only; names without `$.` never leave it
MESSAGE_TYPE, SENDER_DEVICE, SENDER_MODULE = "messageType", "rpSenderDeviceId", "rpSenderModuleId"
TWIN_CHANGE = "twinChangeNotification"
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
    SCHEMA: "iothub-message-schema",
}
# name in a route's condition -> MQTT short name
_CONDITION_NAMES = {
    "messageid": "$.mid",
    "correlationid": "$.cid",
    "cid": "$.cid",
    "userid": "$.uid",
    "to": "$.to",
    "contenttype": "$.ct",
    "contentencoding": "$.ce",
    "messageschema": SCHEMA,
    "messagetype": MESSAGE_TYPE,
    "rpsenderdeviceid": SENDER_DEVICE,
    "rpsendermoduleid": SENDER_MODULE,
    "creationtime": "$.ctime",
    "absolute-expiry-time": "$.exp",
    "iothub-interface-id": "$.ifid",
    "dt-subject": "$.sub",
    "outputname": OUTPUT,
    "connectiondeviceid": CONNECTION_DEVICE,
    "connectionmoduleid": CONNECTION_MODULE,
}
_ENCODINGS = {"utf-8": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}  # of bodies that can be asked
_PATH_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?")


@dataclass(frozen=True)
class Message:
    """`system` has MQTT short names as keys."""

    body: bytes
    properties: Mapping[str, str] = field(default_factory=dict)
    system: Mapping[str, str] = field(default_factory=dict)

    def resolve(self, name: str) -> Any:
        """A property for a route's condition: `name`, `$systemName`, `$body.path` or `{$name}`.

        As edgeHub: an application property of that name comes first unless the name is in braces; case does not count;
        None is what is not there, or null in the body.
        """
        escaped = name.startswith("{")
        name = name.strip("{}")
        if not escaped and (value := _ignoring_case(self.properties, name)) is not None:
            return value
        if not name.startswith("$"):
            return None
        if name.lower().startswith("$body."):
            return self._from_body(name)
        return self.system.get(_CONDITION_NAMES.get(name[1:].lower(), name))

    def _from_body(self, path: str) -> Any:
        value = self._json
        if value is UNDEFINED:
            return value
        for key, index in _PATH_PART.findall(path.partition(".")[2]):
            if key:
                value = value.get(key) if isinstance(value, dict) else None
            else:
                value = value[int(index)] if isinstance(value, list) and int(index) < len(value) else None
        # edgeHub's JSON reader makes dates of such texts, and conditions have no dates
        return UNDEFINED if isinstance(value, str) and _DATE.fullmatch(value) else value

    @cached_property
    def _json(self) -> Any:
        """As IoT Hub: only an object that says it is JSON, and in which encoding, can be asked."""
        encoding = _ENCODINGS.get(self.system.get("$.ce", "").lower())
        if encoding is None or self.system.get("$.ct", "").lower() != "application/json":
            return UNDEFINED
        try:
            value = json.loads(self.body.decode(encoding).removeprefix("\ufeff"))
        except (ValueError, RecursionError):
            return UNDEFINED
        return value if isinstance(value, dict) else UNDEFINED


def _ignoring_case(properties: Mapping[str, str], name: str) -> str | None:
    if name in properties:
        return properties[name]
    return next((value for key, value in properties.items() if key.lower() == name.lower()), None)


def twin_change(hub: IdentityName, sender: IdentityName, patch: Mapping[str, Any]) -> Message:
    """What edgeHub makes of a client's reported properties: a message of its own that names the client."""
    system = {SCHEMA: TWIN_CHANGE, MESSAGE_TYPE: TWIN_CHANGE}
    system |= {CONNECTION_DEVICE: hub.device_id, CONNECTION_MODULE: hub.module_id, SENDER_DEVICE: sender.device_id}
    if sender.module_id:
        system[SENDER_MODULE] = sender.module_id
    return Message(json.dumps(patch, separators=(",", ":")).encode(), {}, system)


def too_long() -> HubError:
    limit = f"a message's properties have at most {MAX_PROPERTY_BAG_CHARACTERS} characters, percent-encoded"
    return bad_request(limit, advice="send fewer, or shorter ones")


def decode_properties(bag: str) -> tuple[dict[str, str], dict[str, str]]:
    """(application properties, system properties) of the end of a topic.

    Raises:
        HubError: 400 for too many or too long.
    """
    if len(bag) > MAX_PROPERTY_BAG_CHARACTERS:
        raise too_long()
    properties: dict[str, str] = {}
    system: dict[str, str] = {}
    for part in bag.strip("/").split("&"):
        if part:
            name, _, value = part.partition("=")
            name = unquote(name)
            (system if name.startswith("$.") else properties)[name] = unquote(value)
    if len(properties) + len(system) > MAX_PROPERTIES:
        raise bad_request(f"a message has at most {MAX_PROPERTIES} properties", advice="send fewer")
    return properties, system


def encode_properties(properties: Mapping[str, str], system: Mapping[str, str]) -> str:
    """The inverse of `decode_properties`."""
    return "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in {**system, **properties}.items()
    )
