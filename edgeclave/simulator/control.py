"""What has no counterpart in Azure's SDKs: the running simulator's own small HTTP interface on a unix socket (0600).

GET  /status      what runs, who is connected, what waits
PUT  /upstream    {"online": false} cuts the edge device off from IoT Hub
POST /inputs      a message for a module's input, as if a route had sent it
PUT  /modules     {"moduleId": "x", "byHand": true} leaves a deployed module to whoever runs it by hand
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import aiohttp
import msgspec
from aiohttp import web

from edgeclave.edge.store import StoreError
from edgeclave.errors import ConfigurationError, EdgeclaveError
from edgeclave.simulator.edge_hub import EDGE_AGENT, EdgeHub, too_large
from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.identities import SYSTEM_MODULES, IdentityName
from edgeclave.simulator.log import http_logger
from edgeclave.simulator.message import MAX_BODY_BYTES, Message, decode_properties, encode_properties
from edgeclave.simulator.settings import Settings
from edgeclave.simulator.workload.sockets import make_private, runtime_folder

SOCKET_NAME = "control"  # modules' sockets end in .sock
MAX_REQUEST_BYTES = 2 * MAX_BODY_BYTES  # base64 and properties
REQUEST_SECONDS = 30
_Body = TypeVar("_Body")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class UpstreamOrder(msgspec.Struct, forbid_unknown_fields=True):
    online: bool


class InputOrder(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """`properties` are the sender's own, `system` has MQTT short names as keys."""

    module_id: str
    input_name: str
    body: bytes
    properties: dict[str, str] = {}
    system: dict[str, str] = {}


class ModuleOrder(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    module_id: str
    by_hand: bool


class Supervisor(Protocol):
    """What of `supervisor.agent.Agent` is used here."""

    async def take_over(self, module_id: str) -> dict[str, str]:
        """The environment of a module that is left to somebody else."""

    def give_back(self, module_id: str) -> None:
        """Runs it again."""


class ModuleStatus(msgspec.Struct, rename="camel"):
    """`status` is edgeAgent's, empty for a module that it does not run; `waiting_inputs` counts messages."""

    module_id: str
    status: str
    description: str
    connected: bool
    restart_count: int
    last_start_time_utc: str
    waiting_inputs: int


class Status(msgspec.Struct, rename="camel"):
    """`waiting_upstream` counts messages that edgeHub keeps for IoT Hub; `events` those the hub has taken."""

    pid: int
    hub: str
    device_id: str
    address: str
    online: bool
    waiting_upstream: int
    events: int
    deployment_version: int
    deployment_problem: str
    modules: list[ModuleStatus]


class ControlSocket:
    """The server's end."""

    def __init__(self, hub: EdgeHub, settings: Settings, state: Path) -> None:
        self._hub = hub
        self._settings = settings
        self._path = runtime_folder(state) / SOCKET_NAME
        self._runner: web.AppRunner | None = None
        self.supervisor: Supervisor | None = None

    async def start(self) -> None:
        """Raises ConfigurationError `runtime-folder-unsafe`."""
        make_private(self._path.parent)
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(os.fspath(self._path))
        finally:
            os.umask(mask)
        application = web.Application(middlewares=[_answer_errors], client_max_size=MAX_REQUEST_BYTES)
        application.add_routes(
            [
                web.get("/status", self._status),
                web.put("/upstream", self._upstream),
                web.post("/inputs", self._input),
                web.put("/modules", self._module),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, logger=http_logger(), shutdown_timeout=1)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._path.unlink(missing_ok=True)

    async def _status(self, _request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._describe()), content_type="application/json")

    async def _upstream(self, request: web.Request) -> web.Response:
        self._hub.upstream.set_online((await _body(request, UpstreamOrder)).online)
        await self._hub.store.committed()
        return web.json_response({})

    async def _input(self, request: web.Request) -> web.Response:
        order = await _body(request, InputOrder)
        target = IdentityName(self._settings.device_id, order.module_id)
        advice = "`edgeclave sim status` names the modules"
        if order.module_id in SYSTEM_MODULES:
            raise ConfigurationError("no-inputs", f"{order.module_id} has no inputs", where="MODULE", advice=advice)
        if not order.module_id or self._hub.identities.find(target) is None:
            what = f"there is no module {order.module_id[:128]!r}"
            raise ConfigurationError("module-not-found", what, where="MODULE", advice=advice)
        if not order.input_name or "/" in order.input_name:
            raise ConfigurationError(
                "bad-input-name",
                f"{order.input_name!r} is not the name of an input",
                where="INPUT",
                advice="name it as routes do after /inputs/",
            )
        bag = encode_properties(order.properties, order.system)  # no more than a sender could have sent
        self._hub.send_to_input(target, order.input_name, Message(order.body, *decode_properties(bag)))
        await self._hub.store.committed()
        return web.json_response({})

    async def _module(self, request: web.Request) -> web.Response:
        order = await _body(request, ModuleOrder)
        if self.supervisor is None:
            raise ConfigurationError("no-such-module", "this simulator runs no modules")
        if order.by_hand:
            return web.json_response({"environment": await self.supervisor.take_over(order.module_id)})
        self.supervisor.give_back(order.module_id)
        return web.json_response({})

    def _describe(self) -> Status:
        device = self._settings.device_id
        agent = self._hub.twins.at_edge(IdentityName(device, EDGE_AGENT)).reported
        system = {
            f"${name}": {"runtimeStatus": module.get("runtimeStatus", "")}
            for name, module in agent.get("systemModules", {}).items()
        }
        reported = {**system, **agent.get("modules", {})}
        waiting = self._hub.inputs.counts(device)
        modules = []
        for identity in self._hub.identities.modules(device):
            module_id = identity.name.module_id
            shown = reported.get(module_id, {})
            modules.append(
                ModuleStatus(
                    module_id,
                    shown.get("runtimeStatus", ""),
                    shown.get("statusDescription", ""),
                    self._hub.connected(identity.name),
                    shown.get("restartCount", 0),
                    shown.get("lastStartTimeUtc", ""),
                    waiting.get(module_id, 0),
                )
            )
        last = agent.get("lastDesiredStatus", {})
        return Status(
            os.getpid(),
            self._settings.hub_host,
            device,
            self._settings.address,
            self._hub.upstream.online,
            self._hub.upstream.waiting,
            self._hub.events(),
            agent.get("lastDesiredVersion", 0),
            "" if last.get("code", 200) == 200 else last.get("description", ""),
            modules,
        )


@web.middleware
async def _answer_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except EdgeclaveError as error:
        status = error.status if isinstance(error, HubError) else 503 if isinstance(error, StoreError) else 400
        told = {"code": error.code, "what": error.what, "where": error.where, "advice": error.advice}
        return web.json_response(told, status=status)


async def _body(request: web.Request, kind: type[_Body]) -> _Body:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except msgspec.DecodeError as error:
        raise ConfigurationError("bad-request", f"the simulator cannot read this request: {error}") from error


async def ask(state: Path, method: str, path: str, order: msgspec.Struct | None = None) -> Any:
    """The client's end: the JSON answer of the simulator that runs on this state directory.

    Raises:
        ConfigurationError: `simulator-not-running`, `simulator-busy`.
        HubError: `message-too-large`.
        EdgeclaveError: what the simulator refused.
    """
    connector = aiohttp.UnixConnector(path=os.fspath(runtime_folder(state) / SOCKET_NAME))
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
    data = None if order is None else msgspec.json.encode(order)
    if data is not None and len(data) > MAX_REQUEST_BYTES:
        raise too_large()
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, f"http://simulator{path}", data=data) as answer,
        ):
            document = await answer.json()
            if answer.status == 200:
                return document
    except TimeoutError as error:
        raise ConfigurationError(
            "simulator-busy",
            f"the simulator did not answer within {REQUEST_SECONDS} s",
            where=str(state),
            advice="see `edgeclave sim logs simulator`",
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise not_running(state) from error
    raise EdgeclaveError(document["code"], document["what"], where=document["where"], advice=document["advice"])


def not_running(state: Path) -> ConfigurationError:
    return ConfigurationError(
        "simulator-not-running",
        "no simulator runs on this state directory",
        where=str(state),
        advice="start it with `edgeclave sim up`, or name its directory with --state",
    )
