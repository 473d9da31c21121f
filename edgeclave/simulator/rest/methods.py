"""Direct methods, from the service and from module to module."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from aiohttp import web

from edgeclave.simulator.methods import DEFAULT_RESPONSE_SECONDS
from edgeclave.simulator.rest.common import hub_of, target_of, typed_body
from edgeclave.simulator.sas import SharedAccessSignature


class _MethodBody(msgspec.Struct, rename="camel"):
    method_name: Annotated[str, msgspec.Meta(min_length=1)]
    payload: Any = None
    response_timeout_in_seconds: int | None = None
    connect_timeout_in_seconds: int | None = None


def routes() -> list[web.RouteDef]:
    paths = ("/twins/{device}/methods", "/twins/{device}/modules/{module}/methods")
    return [web.post(path, _invoke) for path in paths]


async def _invoke(request: web.Request) -> web.Response:
    body = await typed_body(request, _MethodBody)
    result = await hub_of(request).methods.invoke(
        target_of(request),
        body.method_name,
        body.payload,
        response_seconds=body.response_timeout_in_seconds or DEFAULT_RESPONSE_SECONDS,
        connect_seconds=body.connect_timeout_in_seconds or 0,
        from_device=not SharedAccessSignature.parse(request.headers.get("Authorization", "")).policy,
    )
    return web.json_response({"status": result.status, "payload": result.payload})
