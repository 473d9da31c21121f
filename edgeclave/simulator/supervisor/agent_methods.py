"""edgeAgent's direct methods: ping, RestartModule, GetModuleLogs (Microsoft's "built-in edgeAgent direct methods").

The agent is a client like any other: it has a link, gets requests on it, and answers them.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import unquote

import msgspec

from edgeclave.errors import EdgeclaveError
from edgeclave.simulator.hub_errors import HubError, bad_request
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.log import logger
from edgeclave.simulator.methods import MAX_PAYLOAD_BYTES, REQUESTS_FILTER, DirectMethods
from edgeclave.simulator.supervisor.module import Module
from edgeclave.simulator.twin_document import dump, load

MAX_LOG_BYTES = MAX_PAYLOAD_BYTES // 2  # of each module; JSON may double them
SCHEMA_VERSIONS = ("1.0", "1.1")
_REQUEST = re.compile(r"\$iothub/methods/POST/(?P<name>[^/]+)/\?\$rid=(?P<id>\d+)")
_Payload = TypeVar("_Payload", bound="_Versioned")
_log = logger("supervisor")


class _Versioned(msgspec.Struct, rename="camel", kw_only=True):
    schema_version: str


class _Restart(_Versioned):
    id: str


class _Filter(msgspec.Struct, rename="camel"):
    tail: int | None = None
    regex: str | None = None


class _Item(msgspec.Struct, rename="camel"):
    id: str
    filter: _Filter = msgspec.field(default_factory=_Filter)


class _Logs(_Versioned):
    items: _Item | list[_Item]
    encoding: Literal["none", "gzip"] = "none"
    content_type: Literal["text", "json"] = "text"


class AgentLink:
    """The agent's connection to the hub."""

    def __init__(self, name: IdentityName, methods: DirectMethods, modules: Callable[[], Mapping[str, Module]]) -> None:
        self._name = name
        self._methods = methods
        self._modules = modules
        self._tasks: set[asyncio.Task[None]] = set()
        self._known: dict[str, Callable[[object], Awaitable[Any]]] = {
            "ping": self._ping,
            "restartmodule": self._restart,
            "getmodulelogs": self._logs,
        }

    def subscribed(self, topic_filter: str) -> bool:
        return topic_filter == REQUESTS_FILTER

    def send(self, topic: str, body: bytes) -> None:
        if match := _REQUEST.fullmatch(topic):
            task = asyncio.get_running_loop().create_task(self._answer(match["id"], unquote(match["name"]), body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def disconnect(self, reason: str) -> None:
        for task in self._tasks:
            task.cancel()

    async def _answer(self, request: str, name: str, body: bytes) -> None:
        try:
            handler = self._known.get(name.lower())
            if handler is None:
                raise bad_request(
                    f"edgeAgent of the simulator has no method {name[:80]!r}",
                    advice="it has ping, RestartModule and GetModuleLogs",
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

    async def _logs(self, payload: object) -> list[dict[str, Any]]:
        request = _converted(payload, _Logs)
        answers = []
        for item in request.items if isinstance(request.items, list) else [request.items]:
            wanted = _pattern(item.id)
            for module_id, module in self._modules().items():
                if wanted.fullmatch(module_id):
                    text = _selected(module.log_file, item.filter)
                    if request.content_type == "json":
                        text = json.dumps([{"id": module_id, "text": line} for line in text.splitlines()])
                    answers.append(_encoded(module_id, text, request.encoding))
        return answers


def _converted(payload: object, kind: type[_Payload]) -> _Payload:
    try:
        request = msgspec.convert(payload, kind)
    except msgspec.ValidationError as error:
        raise bad_request(str(error), where="payload") from error
    if request.schema_version not in SCHEMA_VERSIONS:
        raise bad_request(f"schemaVersion is one of {', '.join(SCHEMA_VERSIONS)}", where="payload")
    return request


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise bad_request(f"{text[:80]!r} is not a regular expression: {error}", where="payload") from error


def _selected(path: Path, wanted: _Filter) -> str:
    """The newest lines that pass the filter."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - MAX_LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    if wanted.regex is not None:
        pattern = _pattern(wanted.regex)
        lines = [line for line in lines if pattern.search(line)]
    if wanted.tail is not None:
        lines = lines[-wanted.tail :] if wanted.tail > 0 else []
    return "\n".join(lines)


def _encoded(module_id: str, text: str, encoding: str) -> dict[str, Any]:
    if encoding == "none":
        return {"id": module_id, "payload": text, "payloadBytes": None}
    return {"id": module_id, "payload": None, "payloadBytes": base64.b64encode(gzip.compress(text.encode())).decode()}
