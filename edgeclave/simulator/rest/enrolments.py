"""The provisioning service's REST API (api-version 2021-10-01): enrolments, groups, registrations."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from edgeclave.simulator.hub_errors import bad_request
from edgeclave.simulator.rest.common import etag_of, iot_hub_of, json_body, stored

INDIVIDUAL, GROUP = "/enrollments", "/enrollmentGroups"
_EVERYTHING = re.compile(r"\s*SELECT\s+\*(?:\s+FROM\s+enrollment(?:s|Groups))?\s*;?\s*", re.IGNORECASE)


def routes() -> list[web.RouteDef]:
    return [
        *(web.post(f"{path}/query", _query) for path in (INDIVIDUAL, GROUP)),
        *(web.get(f"{path}/{{id}}", _read) for path in (INDIVIDUAL, GROUP)),
        *(web.put(f"{path}/{{id}}", _put) for path in (INDIVIDUAL, GROUP)),
        *(web.delete(f"{path}/{{id}}", _delete) for path in (INDIVIDUAL, GROUP)),
        *(web.post(f"{path}/{{id}}/attestationmechanism", _attestation) for path in (INDIVIDUAL, GROUP)),
        web.get("/registrations/{id}", _registration),
        web.delete("/registrations/{id}", _forget),
        web.post("/registrations/{id}/query", _of_group),
    ]


def _is_group(request: web.Request) -> bool:
    return request.path.startswith(GROUP)


async def _query(request: web.Request) -> web.Response:
    text = (await json_body(request)).get("query")
    if not isinstance(text, str) or not _EVERYTHING.fullmatch(text):
        raise bad_request("the simulator knows SELECT * only", where="query")
    found = iot_hub_of(request).enrolments.all(is_group=_is_group(request))
    return web.json_response([_shown(enrolment.shown()) for enrolment in found])


async def _read(request: web.Request) -> web.Response:
    enrolment = iot_hub_of(request).enrolments.get(request.match_info["id"], is_group=_is_group(request))
    return web.json_response(_shown(enrolment.shown()))


async def _attestation(request: web.Request) -> web.Response:
    """The one place that shows keys, as in the service."""
    enrolment = iot_hub_of(request).enrolments.get(request.match_info["id"], is_group=_is_group(request))
    return web.json_response(enrolment.document["attestation"])


async def _put(request: web.Request) -> web.Response:
    if_match = etag_of(request) if "If-Match" in request.headers else ""
    body = await json_body(request)
    enrolment = iot_hub_of(request).enrolments.put(
        request.match_info["id"], body, is_group=_is_group(request), if_match=if_match
    )
    return await stored(request, _shown(enrolment.shown()))


async def _delete(request: web.Request) -> web.Response:
    iot_hub_of(request).enrolments.delete(
        request.match_info["id"], is_group=_is_group(request), if_match=etag_of(request)
    )
    return await stored(request, status=204)


async def _registration(request: web.Request) -> web.Response:
    return web.json_response(iot_hub_of(request).registrations.state(request.match_info["id"]))


async def _forget(request: web.Request) -> web.Response:
    iot_hub_of(request).registrations.forget(request.match_info["id"])
    return await stored(request, status=204)


async def _of_group(request: web.Request) -> web.Response:
    return web.json_response(iot_hub_of(request).registrations.of_group(request.match_info["id"]))


def _shown(document: dict[str, Any]) -> dict[str, Any]:
    """Without symmetric keys."""
    attestation = document["attestation"]
    return {**document, "attestation": {key: held for key, held in attestation.items() if key != "symmetricKey"}}
