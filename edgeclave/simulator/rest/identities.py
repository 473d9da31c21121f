"""Devices and modules: create, read, update, delete, list."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.hub_errors import bad_request
from edgeclave.simulator.identities import HubIdentity
from edgeclave.simulator.rest.common import etag_of, hub_of, stored, target_of, typed_body

MAX_LISTED = 1000
_NEVER = "0001-01-01T00:00:00Z"


class _SymmetricKey(msgspec.Struct, rename="camel"):
    primary_key: str | None = None
    secondary_key: str | None = None


class _Authentication(msgspec.Struct, rename="camel"):
    type: str = "sas"
    symmetric_key: _SymmetricKey | None = None


class _Capabilities(msgspec.Struct, rename="camel"):
    iot_edge: bool = False


class _IdentityBody(msgspec.Struct, rename="camel"):
    """Unknown members are ignored, as IoT Hub does: clients send back whole documents."""

    authentication: _Authentication | None = None
    capabilities: _Capabilities | None = None
    managed_by: str | None = None
    status: str | None = None


def routes() -> list[web.RouteDef]:
    paths = ("/devices/{device}", "/devices/{device}/modules/{module}")
    return [
        web.get("/devices", _list_devices),
        web.get("/devices/{device}/modules", _list_modules),
        web.get("/statistics/devices", _statistics),
        *(web.get(path, _read) for path in paths),
        *(web.put(path, _put) for path in paths),
        *(web.delete(path, _delete) for path in paths),
    ]


async def _read(request: web.Request) -> web.Response:
    hub = hub_of(request)
    return web.json_response(document(hub, hub.identities.get(target_of(request))))


async def _list_devices(request: web.Request) -> web.Response:
    hub = hub_of(request)
    return web.json_response([document(hub, identity) for identity in hub.identities.devices()[:MAX_LISTED]])


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


async def _put(request: web.Request) -> web.Response:
    hub, name = hub_of(request), target_of(request)
    body = await typed_body(request, _IdentityBody)
    authentication = body.authentication or _Authentication()
    if authentication.type not in ("sas", "none"):
        raise bad_request(
            f"authentication type {authentication.type!r} is not known to the simulator", where="authentication.type"
        )
    if body.status not in (None, "enabled", "disabled"):
        raise bad_request("status is enabled or disabled", where="status")
    keys = authentication.symmetric_key or _SymmetricKey()
    if "If-Match" in request.headers:
        identity = hub.identities.update(
            name,
            primary_key=keys.primary_key,
            secondary_key=keys.secondary_key,
            enabled=body.status != "disabled",
            if_match=etag_of(request),
        )
    else:
        identity = hub.identities.create(
            name,
            primary_key=keys.primary_key,
            secondary_key=keys.secondary_key,
            iot_edge=body.capabilities is not None and body.capabilities.iot_edge,
            managed_by=body.managed_by or "",
        )
    return await stored(request, document(hub, identity))


async def _delete(request: web.Request) -> web.Response:
    hub_of(request).identities.delete(target_of(request), if_match=etag_of(request))
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
        "cloudToDeviceMessageCount": 0,
        "authentication": {
            "type": "sas",
            "symmetricKey": {"primaryKey": identity.primary_key, "secondaryKey": identity.secondary_key},
            "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
        },
    }
    if identity.name.module_id:
        shown |= {"moduleId": identity.name.module_id, "managedBy": identity.managed_by}
    else:
        status = "enabled" if identity.enabled else "disabled"
        shown |= {"status": status, "capabilities": {"iotEdge": identity.iot_edge}}
    return shown


def connection_state(hub: EdgeHub, identity: HubIdentity) -> str:
    connected = hub.links.get(identity.name) is not None and not hub.cut_off(identity.name)
    return "Connected" if connected else "Disconnected"
