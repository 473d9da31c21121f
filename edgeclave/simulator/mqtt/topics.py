"""What the SDKs publish to, taken apart (IoT Hub developer guide, MQTT support; module topics as edgeHub has them)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs

from edgeclave.simulator.hub_errors import HubError, bad_request
from edgeclave.simulator.identities import IdentityName

MAX_REQUEST_ID_CHARACTERS = 256
_METHOD_RESPONSE = re.compile(r"\$iothub/methods/res/(?P<status>-?\d{1,9})/\?(?P<query>.*)", re.DOTALL)
_TWIN_GET = "$iothub/twin/GET/?"
_TWIN_REPORTED = "$iothub/twin/PATCH/properties/reported/?"
_SUBSCRIBABLE = (
    "$iothub/twin/res/#",
    "$iothub/twin/PATCH/properties/desired/#",
    "$iothub/methods/POST/#",
)


@dataclass(frozen=True)
class Telemetry:
    property_bag: str


@dataclass(frozen=True)
class TwinGet:
    request_id: str


@dataclass(frozen=True)
class ReportedPatch:
    request_id: str


@dataclass(frozen=True)
class MethodResponse:
    request_id: str
    status: int


Request = Telemetry | TwinGet | ReportedPatch | MethodResponse


def parse_topic(topic: str, sender: IdentityName) -> Request:
    """What a publish of this client means.

    Raises:
        HubError: 400 unknown topic, 403 another client's topic.
    """
    if topic.startswith(_TWIN_GET):
        return TwinGet(request_id_of(topic.removeprefix(_TWIN_GET)))
    if topic.startswith(_TWIN_REPORTED):
        return ReportedPatch(request_id_of(topic.removeprefix(_TWIN_REPORTED)))
    if match := _METHOD_RESPONSE.fullmatch(topic):
        return MethodResponse(request_id_of(match["query"]), int(match["status"]))
    own = f"{_own(sender)}/messages/events"
    if topic == own or topic.startswith(own + "/"):
        return Telemetry(topic.removeprefix(own).strip("/"))
    if topic.startswith("devices/"):
        raise HubError(403, "Forbidden", f"{sender} may not publish to {topic[:120]!r}")
    raise bad_request(f"nothing is known about the topic {topic[:120]!r}")


def may_subscribe(topic_filter: str, client: IdentityName) -> bool:
    """A client gets only what is meant for it."""
    if topic_filter in _SUBSCRIBABLE:
        return True
    kind = "inputs" if client.module_id else "messages/devicebound"
    return topic_filter == f"{_own(client)}/{kind}/#"


def _own(client: IdentityName) -> str:
    module = f"/modules/{client.module_id}" if client.module_id else ""
    return f"devices/{client.device_id}{module}"


def request_id_of(query: str) -> str:
    """Raises HubError 400 when there is not just one."""
    values = parse_qs(query).get("$rid", [])
    if len(values) != 1 or len(values[0]) > MAX_REQUEST_ID_CHARACTERS:
        raise bad_request("a request needs one $rid")
    return values[0]
