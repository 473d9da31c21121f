"""What all handlers share: requests read with limits, IoT Hub's form of errors, answers after the commit."""

from __future__ import annotations

import uuid
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.hub_errors import HubError, bad_request
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.twin_document import load

MAX_REQUEST_BYTES = 2 << 20  # a deployment manifest with room to spare
HUB = web.AppKey("hub", EdgeHub)
Body = TypeVar("Body")


def hub_of(request: web.Request) -> EdgeHub:
    return request.app[HUB]


def target_of(request: web.Request) -> IdentityName:
    """Device, or module of a device, named in the path."""
    return IdentityName(request.match_info["device"], request.match_info.get("module", ""))


def etag_of(request: web.Request) -> str:
    """The etag of If-Match, without quotes; `*` when there is none."""
    return request.headers.get("If-Match", "*").strip().removeprefix("W/").strip('"') or "*"


async def json_body(request: web.Request) -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        HubError: 400 or 413.
    """
    try:
        body = load(await request.read(), "body")
    except web.HTTPRequestEntityTooLarge:
        raise HubError(413, "MessageTooLarge", f"a request has at most {MAX_REQUEST_BYTES} bytes") from None
    if not isinstance(body, dict):
        raise bad_request("must be a JSON object", where="body")
    return body


async def typed_body(request: web.Request, kind: type[Body]) -> Body:
    """The request's JSON object as a msgspec struct.

    Raises:
        HubError: 400 naming the field, or 413.
    """
    body = await json_body(request)
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise bad_request(str(error), where="body") from error


async def stored(request: web.Request, document: object = None, *, status: int = 200) -> web.Response:
    """The answer to a write: sent when the write is on disk."""
    await hub_of(request).store.committed()
    return web.Response(status=status) if document is None else web.json_response(document, status=status)


def error_response(error: HubError) -> web.Response:
    """In IoT Hub's form, so that SDKs and their users see what they are used to."""
    place = f" ({error.where})" if error.where else ""
    advice = f"; {error.advice}" if error.advice else ""
    return web.json_response(
        {
            "Message": f"ErrorCode:{error.name};{error.what}{place}{advice}",
            "ExceptionMessage": f"Tracking ID:{uuid.uuid4().hex}",
        },
        status=error.status,
        headers={"iothub-errorcode": error.name},
    )
