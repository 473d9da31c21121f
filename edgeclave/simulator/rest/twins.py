"""Twins: read, patch, replace; and queries over them."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from edgeclave.errors import ConfigurationError
from edgeclave.simulator.conditions import parse
from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.hub_errors import bad_request
from edgeclave.simulator.identities import HubIdentity
from edgeclave.simulator.rest.common import etag_of, hub_of, json_body, stored, target_of, typed_body
from edgeclave.simulator.rest.identities import connection_state

MAX_PAGE = 100  # IoT Hub's limit for one page of a query
_QUERY = re.compile(
    r"\s*SELECT\s+\*\s+FROM\s+(?P<source>devices\.modules|devices)(?:\s+WHERE\s+(?P<condition>.+?))?\s*;?\s*",
    re.IGNORECASE | re.DOTALL,
)


class _QueryBody(msgspec.Struct):
    query: str


def routes() -> list[web.RouteDef]:
    paths = ("/twins/{device}", "/twins/{device}/modules/{module}")
    return [
        web.post("/devices/query", _query),
        *(web.get(path, _read) for path in paths),
        *(web.patch(path, _patch) for path in paths),
        *(web.put(path, _replace) for path in paths),
    ]


async def _read(request: web.Request) -> web.Response:
    hub = hub_of(request)
    return web.json_response(document(hub, hub.identities.get(target_of(request))))


async def _patch(request: web.Request) -> web.Response:
    return await _update(request, replace=False)


async def _replace(request: web.Request) -> web.Response:
    return await _update(request, replace=True)


async def _update(request: web.Request, *, replace: bool) -> web.Response:
    hub, name = hub_of(request), target_of(request)
    identity = hub.identities.get(name)
    body = await json_body(request)
    properties = body.get("properties") or {}
    if not isinstance(properties, dict):
        raise bad_request("must be a JSON object", where="properties")
    hub.twins.update(
        name,
        desired=properties.get("desired"),
        tags=body.get("tags"),
        replace=replace,
        if_match=etag_of(request),
    )
    return await stored(request, document(hub, identity))


async def _query(request: web.Request) -> web.Response:
    """`SELECT * FROM devices|devices.modules [WHERE ...]`, in pages."""
    hub = hub_of(request)
    text = (await typed_body(request, _QueryBody)).query
    match = _QUERY.fullmatch(text)
    if match is None:
        raise bad_request(
            f"the simulator does not know the query {text[:120]!r}",
            advice="it knows SELECT * FROM devices|devices.modules [WHERE condition]",
        )
    try:
        condition = parse(match["condition"], where="WHERE") if match["condition"] else None
    except ConfigurationError as error:
        raise bad_request(error.what, where=error.where, advice=error.advice) from error
    of_modules = match["source"].lower() == "devices.modules"
    identities = hub.identities.modules() if of_modules else hub.identities.devices()
    found = [document(hub, identity) for identity in identities]
    if condition is not None:
        found = [twin for twin in found if condition.matches(partial(_lookup, twin))]
    size = _header_number(request, "x-ms-max-item-count", MAX_PAGE, 1)
    start = _header_number(request, "x-ms-continuation", 0, 0)
    headers = {"x-ms-item-type": "Twin"}
    if start + size < len(found):
        headers["x-ms-continuation"] = str(start + size)
    return web.json_response(found[start : start + size], headers=headers)


def document(hub: EdgeHub, identity: HubIdentity) -> dict[str, Any]:
    """The twin as IoT Hub shows it."""
    twin = hub.twins.get(identity.name)
    shown: dict[str, Any] = {
        "deviceId": identity.name.device_id,
        "etag": twin.etag,
        "deviceEtag": identity.etag,
        "version": twin.version,
        "status": "enabled" if identity.enabled else "disabled",
        "connectionState": connection_state(hub, identity),
        "authenticationType": "sas",
        "tags": twin.tags,
        "properties": twin.for_service(),
    }
    if identity.name.module_id:
        shown["moduleId"] = identity.name.module_id
    else:
        shown["capabilities"] = {"iotEdge": identity.iot_edge}
    return shown


def _lookup(twin: dict[str, Any], name: str) -> Any:
    value: Any = twin
    for part in re.findall(r"\['([^']+)'\]|([^.\[\]]+)", name):
        value = value.get(part[0] or part[1]) if isinstance(value, dict) else None
    return value


def _header_number(request: web.Request, name: str, default: int, minimum: int) -> int:
    text = request.headers.get(name, str(default))
    if not text.isdecimal() or int(text) < minimum:
        raise bad_request(f"{text[:40]!r} is not a number", where=name)
    return min(int(text), MAX_PAGE) if minimum else int(text)
