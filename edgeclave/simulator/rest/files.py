"""File upload, for devices: answered as by an IoT Hub that has no storage account."""

from __future__ import annotations

from aiohttp import web

from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.rest.common import error_response

PATHS = ("/devices/{device}/files", "/devices/{device}/files/notifications")
_ERROR = HubError(
    400,
    "DefaultStorageEndpointNotConfigured",
    "the simulator has no file upload",
    advice="upload to a storage account, or to azurite, by itself",
)


def routes() -> list[web.RouteDef]:
    return [web.post(path, _refuse) for path in PATHS]


async def _refuse(_request: web.Request) -> web.Response:
    response = error_response(_ERROR)
    response.set_status(_ERROR.status, f"{_ERROR.name}: {_ERROR.what}")  # all that azure-iot-device shows of an answer
    return response
