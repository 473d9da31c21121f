"""Files that edgeAgent puts into a container of a storage account, and how far it has come with each.

The address is a shared access signature with the right to create blobs. It is a secret: it is never logged, and errors
name the host only.
"""

from __future__ import annotations

import asyncio
import ssl
import time
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

import aiohttp
from yarl import URL

from edgeclave.errors import EdgeclaveError
from edgeclave.simulator.hub_errors import HubError, bad_request
from edgeclave.simulator.log import logger

MAX_ADDRESS_CHARACTERS = 4096
MAX_TASKS = 100  # whose outcome is remembered
UPLOAD_SECONDS = 60.0
RETRY_SECONDS = (5.0, 10.0)  # after failures that may pass; edgeAgent tries three times, too
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_log = logger("supervisor")

TaskState = Literal["Unknown", "Running", "Completed", "Failed"]


@dataclass(frozen=True)
class Blob:
    """`name` is its path in the container."""

    name: str
    data: bytes
    content_type: str
    content_encoding: str = ""


@dataclass
class _Task:
    state: TaskState = "Running"
    message: str = ""


class BackgroundTasks:
    """What GetTaskStatus asks about."""

    def __init__(self) -> None:
        self._known: dict[str, _Task] = {}
        self._running: set[asyncio.Task[None]] = set()

    def run(self, what: str, work: Awaitable[None]) -> dict[str, str]:
        """Starts it; the answer to who asked for it."""
        correlation_id = str(uuid.uuid4())
        while len(self._known) >= MAX_TASKS:
            del self._known[next(iter(self._known))]
        self._known[correlation_id] = known = _Task()
        task = asyncio.get_running_loop().create_task(_run(known, what, work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return self.status(correlation_id)

    def status(self, correlation_id: str) -> dict[str, str]:
        task = self._known.get(correlation_id, _Task("Unknown"))
        return {"status": task.state, "message": task.message, "correlationId": correlation_id}

    def cancel(self) -> None:
        for task in self._running:
            task.cancel()


async def _run(known: _Task, what: str, work: Awaitable[None]) -> None:
    try:
        await work
    except (EdgeclaveError, OSError) as error:
        known.state, known.message = "Failed", f"Task {what} failed because of error {error}"
        _log.warning("a task of edgeAgent failed", task=what, reason=str(error))
    except BaseException:
        known.state, known.message = "Failed", f"Task {what} was given up"
        raise
    else:
        known.state = "Completed"


def checked_address(address: str) -> URL:
    """Raises HubError 400 for what is not the address of a container."""
    try:
        url = URL(address, encoded=True) if len(address) <= MAX_ADDRESS_CHARACTERS else None
    except ValueError:
        url = None
    if url is None or not url.host or url.path in ("", "/") or url.scheme not in ("https", "http"):
        raise bad_request("must be the address of a container with its signature: https://...?...", where="sasUrl")
    if url.scheme == "http" and url.host not in _LOOPBACK:
        raise bad_request("must begin with https, except on this machine itself", where="sasUrl")
    return url


async def upload(container: URL, blob: Blob) -> None:
    """Puts one blob, or puts it again after failures that may pass.

    Raises:
        HubError: the storage refuses it, or cannot be reached.
    """
    address, _, signature = str(container).partition("?")
    url = URL(f"{address.rstrip('/')}/{quote(blob.name)}?{signature}", encoded=True)
    headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": "2021-08-06", "Content-Type": blob.content_type}
    if blob.content_encoding:
        headers["x-ms-blob-content-encoding"] = blob.content_encoding
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())  # as SSL_CERT_FILE says now, not at the import
    timeout = aiohttp.ClientTimeout(total=UPLOAD_SECONDS)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        for wait in (*RETRY_SECONDS, None):
            failure = await _put(session, url, blob.data, headers)
            if failure is None:
                return
            if wait is None or failure.status < 500:
                raise failure
            await asyncio.sleep(wait)


async def _put(session: aiohttp.ClientSession, url: URL, data: bytes, headers: dict[str, str]) -> HubError | None:
    try:
        async with session.put(url, data=data, headers=headers, allow_redirects=False) as answer:
            if answer.status == 201:
                return None
            code = answer.headers.get("x-ms-error-code", "")[:80]
            status = answer.status if answer.status >= 400 else 502
            return HubError(status, "BlobNotStored", f"{url.host} answered {answer.status} {code}".strip())
    except (aiohttp.ClientError, TimeoutError) as error:
        return HubError(503, "BlobNotStored", f"{url.host} cannot be reached: {type(error).__name__}")


def dated(name: str, extension: str) -> str:
    """A blob's name as edgeAgent makes it: `{name}-{date and time}.{extension}`."""
    return f"{name}-{time.strftime('%Y-%m-%d--%H-%M-%S', time.gmtime())}.{extension}"
