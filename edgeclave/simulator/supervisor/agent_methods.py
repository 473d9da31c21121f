"""edgeAgent's direct methods (Microsoft's "built-in edgeAgent direct methods").

ping, RestartModule, GetModuleLogs, UploadModuleLogs, UploadSupportBundle, GetTaskStatus. The agent is a client like any
other: it has a link, gets requests on it, and answers them. edgeAgent and edgeHub share the simulator's log.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

import msgspec
from yarl import URL

from edgeclave.errors import EdgeclaveError
from edgeclave.simulator.hub_errors import HubError, bad_request
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.log import logger
from edgeclave.simulator.methods import REQUESTS_FILTER, DirectMethods
from edgeclave.simulator.state import SimulatorState
from edgeclave.simulator.supervisor.log_requests import LogFilter, LogRequest, selected, written
from edgeclave.simulator.supervisor.module_logs import ModuleLogs
from edgeclave.simulator.supervisor.support_bundle import support_bundle
from edgeclave.simulator.supervisor.uploads import BackgroundTasks, Blob, checked_address, dated, upload
from edgeclave.simulator.twin_document import dump, load

MAX_LOG_BYTES = 127_000  # of all modules in one answer, as edgeAgent's
SCHEMA_VERSIONS = ("1.0", "1.1")
RUNTIME = ("edgeAgent", "edgeHub")
SIMULATOR_LOG = "simulator.log"
_REQUEST = re.compile(r"\$iothub/methods/POST/(?P<name>[^/]+)/\?\$rid=(?P<id>\d+)")
_CONTENT_TYPES = {"json": "application/json", "text": "text/plain"}
_Payload = TypeVar("_Payload", bound="_Versioned | LogRequest")
_log = logger("supervisor")


class Supervised(Protocol):
    """A module as far as these methods know it."""

    log_file: Path

    def start(self) -> None: ...

    async def stop(self) -> None: ...


class _Versioned(msgspec.Struct, rename="camel", kw_only=True):
    schema_version: str


class _Restart(_Versioned):
    id: str


class _Upload(LogRequest, rename="camel", kw_only=True):
    sas_url: str


class _Bundle(_Versioned, rename="camel", kw_only=True):
    sas_url: str
    since: str | int | None = None
    until: str | int | None = None
    edge_runtime_only: bool = False


class _Status(_Versioned, rename="camel", kw_only=True):
    correlation_id: str


class AgentLink:
    """The agent's connection to the hub, from `start` to `disconnect`."""

    def __init__(
        self, name: IdentityName, methods: DirectMethods, modules: Callable[[], Mapping[str, Supervised]]
    ) -> None:
        self._name = name
        self._methods = methods
        self._modules = modules
        self._tasks: set[asyncio.Task[None]] = set()
        self._background = BackgroundTasks()
        self._state: SimulatorState
        self._logs = ModuleLogs(self._log_files)
        self._known: dict[str, Callable[[object], Awaitable[Any]]] = {
            "ping": self._ping,
            "restartmodule": self._restart,
            "getmodulelogs": self._get_logs,
            "uploadmodulelogs": self._upload_logs,
            "uploadsupportbundle": self._upload_bundle,
            "gettaskstatus": self._task_status,
        }

    def start(self, state: SimulatorState) -> None:
        self._state = state
        self._keep(asyncio.get_running_loop().create_task(self._logs.follow()))

    def subscribed(self, topic_filter: str) -> bool:
        return topic_filter == REQUESTS_FILTER

    def send(self, topic: str, body: bytes) -> None:
        if match := _REQUEST.fullmatch(topic):
            self._keep(asyncio.get_running_loop().create_task(self._answer(match["id"], unquote(match["name"]), body)))

    def disconnect(self, reason: str) -> None:
        self._background.cancel()
        for task in self._tasks:
            task.cancel()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: str, name: str, body: bytes) -> None:
        try:
            handler = self._known.get(name.lower())
            if handler is None:
                raise bad_request(
                    f"edgeAgent of the simulator has no method {name[:80]!r}",
                    advice="it has ping, RestartModule, GetModuleLogs, UploadModuleLogs, UploadSupportBundle"
                    " and GetTaskStatus",
                )
            status, answer = 200, await handler(load(body, "payload"))
        except HubError as error:
            status, answer = error.status, {"message": str(error)}
        except (EdgeclaveError, OSError) as error:
            _log.error("a method of edgeAgent failed", method=name[:80], error=str(error))
            status, answer = 500, {"message": str(error)}
        self._methods.answered(self._name, request, status, dump(answer).encode())

    async def _ping(self, _payload: object) -> None:
        return None

    async def _restart(self, payload: object) -> None:
        module_id = _converted(payload, _Restart).id
        module = self._modules().get(module_id)
        if module is None:
            raise HubError(404, "NotFound", f"edgeAgent runs no module {module_id[:128]!r}")
        await module.stop()
        module.start()

    async def _get_logs(self, payload: object) -> list[dict[str, Any]]:
        request = _converted(payload, LogRequest)
        found = self._read(request)
        if sum(map(len, found.values())) > MAX_LOG_BYTES:
            raise bad_request(
                f"the logs have more than {MAX_LOG_BYTES} bytes, which is all that a direct method can answer",
                where="payload",
                advice="ask for less with tail, since and until, or use UploadModuleLogs",
            )
        if request.encoding == "gzip":
            return [
                {"id": module_id, "payload": None, "payloadBytes": base64.b64encode(data).decode()}
                for module_id, data in found.items()
            ]
        return [{"id": module_id, "payload": data.decode(), "payloadBytes": None} for module_id, data in found.items()]

    async def _upload_logs(self, payload: object) -> dict[str, str]:
        request = _converted(payload, _Upload)
        container = checked_address(request.sas_url)
        found = self._read(request)
        content_type = _CONTENT_TYPES[request.content_type]
        encoding = "gzip" if request.encoding == "gzip" else ""
        blobs = [
            Blob(self._blob_name(module_id, request.extension), data, content_type, encoding)
            for module_id, data in found.items()
        ]
        return self._background.run("upload logs", _upload_all(container, blobs))

    async def _upload_bundle(self, payload: object) -> dict[str, str]:
        request = _converted(payload, _Bundle)
        container = checked_address(request.sas_url)
        wanted = LogFilter(since=request.since, until=request.until)
        blob = Blob(
            self._blob_name("support-bundle", "zip"), self._bundle(wanted, request.edge_runtime_only), "application/zip"
        )
        return self._background.run("upload support bundle", upload(container, blob))

    async def _task_status(self, payload: object) -> dict[str, str]:
        return self._background.status(_converted(payload, _Status).correlation_id[:128])

    def _read(self, request: LogRequest) -> dict[str, bytes]:
        now = time.time()
        origin = {"iothub": self._state.settings.hub_host, "device": self._name.device_id}
        return {
            module_id: written(
                selected(self._logs.lines(module_id), wanted, now=now), request, origin | {"id": module_id}
            )
            for module_id, wanted in request.wanted(self._logs.modules()).items()
        }

    def _bundle(self, wanted: LogFilter, runtime_only: bool) -> bytes:
        now = time.time()
        logs = {
            module_id: "\n".join(line.text for line in selected(self._logs.lines(module_id), wanted, now=now))
            for module_id in (RUNTIME if runtime_only else self._logs.modules())
        }
        reported = {
            name: self._state.twins.at_edge(IdentityName(self._name.device_id, f"${name}")).reported for name in RUNTIME
        }
        return support_bundle(logs, reported)

    def _log_files(self) -> dict[str, Path]:
        runtime = self._state.directory / "logs" / SIMULATOR_LOG
        return {
            **dict.fromkeys(RUNTIME, runtime),
            **{module_id: module.log_file for module_id, module in self._modules().items()},
        }

    def _blob_name(self, name: str, extension: str) -> str:
        return f"{self._state.settings.hub_host}/{self._name.device_id}/{dated(name, extension)}"


async def _upload_all(container: URL, blobs: Sequence[Blob]) -> None:
    for blob in blobs:
        await upload(container, blob)


def _converted(payload: object, kind: type[_Payload]) -> _Payload:
    try:
        request = msgspec.convert(payload, kind)
    except msgspec.ValidationError as error:
        raise bad_request(str(error), where="payload") from error
    if request.schema_version not in SCHEMA_VERSIONS:
        raise bad_request(f"schemaVersion is one of {', '.join(SCHEMA_VERSIONS)}", where="payload")
    return request
