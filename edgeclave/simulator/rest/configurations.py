"""Configurations: create, read, update, delete, list, try their queries."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from edgeclave.simulator.configurations import Configurations, parse_target
from edgeclave.simulator.hub_errors import HubError, bad_request
from edgeclave.simulator.layers import Configuration
from edgeclave.simulator.queries import parse_query
from edgeclave.simulator.rest.common import etag_of, iot_hub_of, json_body, stored

MAX_LISTED = 20  # IoT Hub's limit for one list


def routes() -> list[web.RouteDef]:
    return [
        web.get("/configurations", _list),
        web.post("/configurations/testQueries", _test),
        web.get("/configurations/{configuration}", _read),
        web.put("/configurations/{configuration}", _put),
        web.delete("/configurations/{configuration}", _delete),
    ]


async def _list(request: web.Request) -> web.Response:
    top = request.query.get("top", str(MAX_LISTED))
    if not top.isdecimal() or int(top) < 1:
        raise bad_request("must be a whole number from 1 on", where="top")
    configurations = iot_hub_of(request).configurations
    listed = configurations.all()[: min(int(top), MAX_LISTED)]  # IoT Hub gives fewer rather than refuses
    return web.json_response([_document(configurations, each) for each in listed])


async def _read(request: web.Request) -> web.Response:
    configurations = iot_hub_of(request).configurations
    return web.json_response(_document(configurations, configurations.get(request.match_info["configuration"])))


async def _put(request: web.Request) -> web.Response:
    configurations, name = iot_hub_of(request).configurations, request.match_info["configuration"]
    body = await json_body(request)
    if body.get("id", name) != name:
        raise bad_request("is not the one in the path", where="id")
    kept = {key: value for key, value in body.items() if key in _KEPT}
    if_match = etag_of(request) if "If-Match" in request.headers else None
    made = configurations.put(name, kept, if_match=if_match)
    await iot_hub_of(request).edge.store.committed()
    return await stored(request, _document(configurations, made))


async def _delete(request: web.Request) -> web.Response:
    iot_hub_of(request).configurations.delete(request.match_info["configuration"], if_match=etag_of(request))
    return await stored(request, status=204)


async def _test(request: web.Request) -> web.Response:
    """Says of each query what is wrong with it; null or absent means nothing."""
    body = await json_body(request)
    answer: dict[str, Any] = {"targetConditionError": None, "customMetricQueryErrors": {}}
    answer["targetConditionError"] = _wrong(parse_target, body.get("targetCondition"))
    queries = body.get("customMetricQueries") or {}
    if not isinstance(queries, dict):
        raise bad_request("must be an object", where="customMetricQueries")
    for name, query in queries.items():
        if error := _wrong(parse_query, str(query)):
            answer["customMetricQueryErrors"][name] = error
    return web.json_response(answer)


def _wrong(parse: Any, text: object) -> str | None:
    try:
        parse(text)
    except HubError as error:
        return str(error)
    return None


_KEPT = ("schemaVersion", "labels", "content", "targetCondition", "priority", "metrics")


def _document(configurations: Configurations, configuration: Configuration) -> dict[str, Any]:
    return {
        "schemaVersion": "1.0",
        **configuration.document,
        "id": configuration.id,
        "priority": configuration.priority,
        "createdTimeUtc": configuration.created,
        "lastUpdatedTimeUtc": configuration.updated,
        "etag": configuration.etag,
        **configurations.metrics(configuration),
    }
