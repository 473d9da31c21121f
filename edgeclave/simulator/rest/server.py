"""The HTTPS listener: the service API for operators, and on the same port what edgeHub offers modules on 443."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Collection

from aiohttp import web

from edgeclave.edge.store import StoreError
from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.log import logger
from edgeclave.simulator.mqtt import websocket
from edgeclave.simulator.mqtt.server import MqttServer
from edgeclave.simulator.rest import deployments, identities, methods, twins
from edgeclave.simulator.rest.common import HUB, MAX_REQUEST_BYTES, error_response
from edgeclave.simulator.sas import SharedAccessSignature
from edgeclave.simulator.settings import POLICY, Settings

SHUTDOWN_SECONDS = 1
_METHODS_SUFFIX = "/methods"
_log = logger("rest")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RestServer:
    """IoT Hub's service API and edgeHub's method API over HTTPS."""

    def __init__(self, hub: EdgeHub, settings: Settings, mqtt: MqttServer) -> None:
        self._hub = hub
        self._mqtt = mqtt
        self._owner_key = settings.owner_key
        self._device_id = settings.device_id
        self._hosts: Collection[str] = (settings.address, settings.hub_host, settings.gateway)
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> None:
        application = web.Application(middlewares=[self._guard], client_max_size=MAX_REQUEST_BYTES)
        application[HUB] = self._hub
        for part in (deployments, twins, methods, identities):
            application.add_routes(part.routes())
        application.add_routes([web.get(websocket.PATH, self._websocket)])
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=context).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        return await websocket.serve(request, self._mqtt)

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Authorizes every request and turns every failure into IoT Hub's error form."""
        try:
            if request.path != websocket.PATH:  # MQTT brings its own credentials
                self._authorize(request)
            return await handler(request)
        except HubError as error:
            if error.status in (401, 403):
                _log.warning("refused", method=request.method, path=request.path[:256], reason=error.what)
            return error_response(error)
        except web.HTTPException as error:
            return error_response(
                HubError(error.status, "InvalidOperation", f"{request.method} {request.path[:120]}: {error.reason}")
            )
        except StoreError as error:
            _log.error("cannot store", error=str(error))
            return error_response(HubError(503, "ServiceUnavailable", error.what, advice=error.advice))
        except Exception:
            _log.exception("failed", method=request.method, path=request.path[:256])
            return error_response(HubError(500, "ServerError", "the simulator failed; its log says why"))

    def _authorize(self, request: web.Request) -> None:
        token = SharedAccessSignature.parse(request.headers.get("Authorization", ""))
        if token.policy:
            if token.policy != POLICY:
                raise HubError(401, "IotHubUnauthorizedAccess", f"there is no policy {token.policy[:80]!r}")
            token.check([self._owner_key], hosts=self._hosts)
            return
        self._authorize_module(request, token)

    def _authorize_module(self, request: web.Request, token: SharedAccessSignature) -> None:
        """A module may call methods of its own device, under its own name."""
        path = token.resource.partition("/")[2]
        parts = path.split("/")
        if len(parts) not in (2, 4) or parts[0] != "devices" or (len(parts) == 4 and parts[2] != "modules"):
            raise HubError(401, "IotHubUnauthorizedAccess", "the shared access signature names no device or module")
        name = IdentityName(parts[1], parts[3] if len(parts) == 4 else "")
        identity = self._hub.identities.find(name)
        if identity is None or not identity.enabled:
            raise HubError(401, "IotHubUnauthorizedAccess", f"{name} is unknown or disabled")
        token.check(identity.keys, hosts=self._hosts, path=identity.resource(""))
        if request.headers.get("x-ms-edge-moduleId", str(name)) != str(name):
            raise HubError(401, "IotHubUnauthorizedAccess", "x-ms-edge-moduleId is not the one who signed")
        methods_of_own_device = (
            request.method == "POST"
            and request.path.startswith(f"/twins/{name.device_id}/")
            and request.path.endswith(_METHODS_SUFFIX)
        )
        if not methods_of_own_device:
            raise HubError(403, "Forbidden", f"{name} may only invoke methods on its own device")
