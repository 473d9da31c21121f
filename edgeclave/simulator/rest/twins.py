"""Twins: read, patch, replace; and queries over them."""

from __future__ import annotations

import msgspec
from aiohttp import web

from edgeclave.simulator.hub_errors import bad_request
from edgeclave.simulator.queries import parse_query
from edgeclave.simulator.rest.common import etag_of, hub_of, iot_hub_of, json_body, stored, target_of, typed_body

MAX_PAGE = 100  # IoT Hub's limit for one page of a query


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
    return web.json_response(iot_hub_of(request).configurations.view(hub.identities.get(target_of(request))))


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
    return await stored(request, iot_hub_of(request).configurations.view(identity))


async def _query(request: web.Request) -> web.Response:
    """A query in pages; the continuation token is the number of the next row."""
    query = parse_query((await typed_body(request, _QueryBody)).query)
    size = _header_number(request, "x-ms-max-item-count", MAX_PAGE, 1)
    start = _header_number(request, "x-ms-continuation", 0, 0)
    found = query.run(iot_hub_of(request).configurations.views(of_modules=query.source == "devices.modules"))
    headers = {"x-ms-item-type": query.item_type}
    if start + size < len(found):
        headers["x-ms-continuation"] = str(start + size)
    return web.json_response(found[start : start + size], headers=headers)


def _header_number(request: web.Request, name: str, default: int, minimum: int) -> int:
    text = request.headers.get(name, str(default))
    if not text.isdecimal() or int(text) < minimum:
        raise bad_request(f"{text[:40]!r} is not a number", where=name)
    return min(int(text), MAX_PAGE) if minimum else int(text)
