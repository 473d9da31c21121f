"""Devices and modules: create, read, update, delete, list."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from edgeclave.simulator.credentials import SAS, Credentials
from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.hub_errors import bad_request
from edgeclave.simulator.identities import HubIdentity
from edgeclave.simulator.rest.common import etag_of, hub_of, stored, target_of, typed_body
from edgeclave.simulator.twin_view import connection_state

MAX_LISTED = 1000
MAX_REASON_CHARACTERS = 128
_NEVER = "0001-01-01T00:00:00Z"


class _SymmetricKey(msgspec.Struct, rename="camel"):
    primary_key: str | None = None
    secondary_key: str | None = None


class _Thumbprints(msgspec.Struct, rename="camel"):
    primary_thumbprint: str | None = None
    secondary_thumbprint: str | None = None


class Authentication(msgspec.Struct, rename="camel"):
    type: str = "sas"
    symmetric_key: _SymmetricKey | None = None
    x509_thumbprint: _Thumbprints | None = msgspec.field(default=None, name="x509Thumbprint")

    def credentials(self) -> Credentials:
        keys, prints = self.symmetric_key or _SymmetricKey(), self.x509_thumbprint or _Thumbprints()
        return Credentials(
            SAS if self.type == "none" else self.type,  # a module that its device speaks for
            keys.primary_key,
            keys.secondary_key,
            prints.primary_thumbprint or "",
            prints.secondary_thumbprint or "",
        )


class Capabilities(msgspec.Struct, rename="camel"):
    iot_edge: bool = False


class _IdentityBody(msgspec.Struct, rename="camel"):
    """Unknown members are ignored, as IoT Hub does: clients send back whole documents."""

    authentication: Authentication | None = None
    capabilities: Capabilities | None = None
    managed_by: str | None = None
    status: str | None = None
    status_reason: str | None = None


def routes() -> list[web.RouteDef]:
    paths = ("/devices/{device}", "/devices/{device}/modules/{module}")
    return [
        web.get("/devices", _list_devices),
        web.get("/devices/{device}/modules", _list_modules),
        web.get("/statistics/devices", _statistics),
        web.get("/statistics/service", _connected),
        *(web.get(path, _read) for path in paths),
        *(web.put(path, _put) for path in paths),
        *(web.delete(path, _delete) for path in paths),
    ]


async def _read(request: web.Request) -> web.Response:
    hub = hub_of(request)
    return web.json_response(document(hub, hub.identities.get(target_of(request))))


async def _list_devices(request: web.Request) -> web.Response:
    hub = hub_of(request)
    return web.json_response([document(hub, identity) for identity in hub.identities.devices()[: _top(request)]])


def _top(request: web.Request) -> int:
    """IoT Hub takes any number that is not 1 to 1000 for 1000."""
    try:
        top = int(request.query.get("top", MAX_LISTED))
    except ValueError:
        raise bad_request("is not a number", where="top") from None
    return top if 0 < top <= MAX_LISTED else MAX_LISTED


async def _list_modules(request: web.Request) -> web.Response:
    hub, name = hub_of(request), target_of(request)
    hub.identities.get(name)
    return web.json_response([document(hub, identity) for identity in hub.identities.modules(name.device_id)])


async def _statistics(request: web.Request) -> web.Response:
    devices = hub_of(request).identities.devices()
    enabled = sum(identity.enabled for identity in devices)
    return web.json_response(
        {
            "totalDeviceCount": len(devices),
            "enabledDeviceCount": enabled,
            "disabledDeviceCount": len(devices) - enabled,
        }
    )


async def _connected(request: web.Request) -> web.Response:
    hub = hub_of(request)
    connected = sum(connection_state(hub, identity) == "Connected" for identity in hub.identities.devices())
    return web.json_response({"connectedDeviceCount": connected})


async def _put(request: web.Request) -> web.Response:
    hub, name = hub_of(request), target_of(request)
    body = await typed_body(request, _IdentityBody)
    credentials = (body.authentication or Authentication()).credentials()
    if body.status not in (None, "enabled", "disabled"):
        raise bad_request("status is enabled or disabled", where="status")
    enabled, reason = body.status != "disabled", (body.status_reason or "")[:MAX_REASON_CHARACTERS]
    iot_edge = body.capabilities is not None and body.capabilities.iot_edge
    if "If-Match" in request.headers:
        identity = hub.identities.update(
            name,
            credentials,
            iot_edge=iot_edge,
            managed_by=body.managed_by,
            enabled=enabled,
            status_reason=reason,
            if_match=etag_of(request),
        )
    else:
        identity = hub.identities.create(
            name,
            credentials,
            iot_edge=iot_edge,
            managed_by=body.managed_by or "",
            enabled=enabled,
            status_reason=reason,
        )
    return await stored(request, document(hub, identity))


async def _delete(request: web.Request) -> web.Response:
    hub_of(request).delete_identity(target_of(request), if_match=etag_of(request))
    return await stored(request, status=204)


def document(hub: EdgeHub, identity: HubIdentity) -> dict[str, Any]:
    """The identity as IoT Hub shows it."""
    shown: dict[str, Any] = {
        "deviceId": identity.name.device_id,
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "connectionState": connection_state(hub, identity),
        "connectionStateUpdatedTime": _NEVER,
        "lastActivityTime": _NEVER,
        "cloudToDeviceMessageCount": hub.inputs.count(identity.name),
        "authentication": {
            "type": identity.authentication,
            "symmetricKey": {"primaryKey": identity.primary_key, "secondaryKey": identity.secondary_key},
            "x509Thumbprint": {
                "primaryThumbprint": identity.primary_thumbprint or None,
                "secondaryThumbprint": identity.secondary_thumbprint or None,
            },
        },
    }
    if identity.name.module_id:
        shown |= {"moduleId": identity.name.module_id, "managedBy": identity.managed_by}
    else:
        status = "enabled" if identity.enabled else "disabled"
        shown |= {
            "status": status,
            "statusReason": identity.status_reason or None,
            "capabilities": {"iotEdge": identity.iot_edge},
        }
    return shown
