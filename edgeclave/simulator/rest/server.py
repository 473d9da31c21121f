"""The HTTPS listener: the service API for operators, and on the same port what edgeHub offers modules on 443."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web

from edgeclave.edge.store import StoreError
from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.iot_hub import IotHub
from edgeclave.simulator.log import http_logger, logger
from edgeclave.simulator.mqtt import websocket
from edgeclave.simulator.mqtt.server import MqttServer
from edgeclave.simulator.rest import (
    bulk,
    commands,
    configurations,
    deployments,
    enrolments,
    files,
    identities,
    methods,
    twins,
)
from edgeclave.simulator.rest.access import RestAccess
from edgeclave.simulator.rest.common import IOT_HUB, MAX_REQUEST_BYTES, error_response
from edgeclave.simulator.settings import Settings

SHUTDOWN_SECONDS = 1
_log = logger("rest")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RestServer:
    """IoT Hub's service API and edgeHub's method API over HTTPS."""

    def __init__(self, hub: IotHub, settings: Settings, mqtt: MqttServer) -> None:
        self._hub = hub
        self._mqtt = mqtt
        self._access = RestAccess(hub.edge, settings)
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Listens there; also beside where it listens already."""
        if self._runner is None:
            self._runner = await self._make_runner()
        await web.TCPSite(self._runner, host, port, ssl_context=context).start()

    async def _make_runner(self) -> web.AppRunner:
        application = web.Application(middlewares=[self._guard], client_max_size=MAX_REQUEST_BYTES)
        application[IOT_HUB] = self._hub
        for part in (deployments, configurations, twins, methods, commands, files, enrolments, bulk, identities):
            application.add_routes(part.routes())
        application.add_routes([web.get(websocket.PATH, self._websocket)])
        runner = web.AppRunner(application, access_log=None, logger=http_logger(), shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        return runner

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
                self._access.check(request)
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
