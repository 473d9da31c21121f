"""Direct methods: a request to a connected module, and its answer.

Limits are Azure's: payload and answer 128 KB, response timeout 5 to 300 s, connect timeout 0 to 300 s.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from edgeclave.simulator.hub_errors import HubError, bad_request
from edgeclave.simulator.identities import Identities, IdentityName
from edgeclave.simulator.links import Links
from edgeclave.simulator.twin_document import dump, load

REQUESTS_FILTER = "$iothub/methods/POST/#"
MAX_PAYLOAD_BYTES = 128 * 1024
MAX_NAME_CHARACTERS = 100
DEFAULT_RESPONSE_SECONDS, MIN_RESPONSE_SECONDS, MAX_RESPONSE_SECONDS = 30, 5, 300
MAX_CONNECT_SECONDS = 300


@dataclass(frozen=True)
class MethodResult:
    """What the module answered."""

    status: int
    payload: Any


class DirectMethods:
    """Sends method requests and matches answers to them; an answer counts only from the module that was asked."""

    def __init__(self, identities: Identities, links: Links, cut_off: Callable[[IdentityName], bool]) -> None:
        """`cut_off` tells whether IoT Hub cannot reach a module now."""
        self._identities = identities
        self._links = links
        self._cut_off = cut_off
        self._numbers = itertools.count(1)
        self._pending: dict[tuple[IdentityName, str], asyncio.Future[MethodResult]] = {}

    async def invoke(
        self,
        target: IdentityName,
        name: str,
        payload: object,
        *,
        response_seconds: int = DEFAULT_RESPONSE_SECONDS,
        connect_seconds: int = 0,
        from_device: bool = False,
    ) -> MethodResult:
        """`from_device`: the caller is a module beside the target, so that an outage of the hub does not matter.

        Raises:
            HubError: 400 for bad arguments, 404 unknown or not connected, 413 too large, 504 too late.
        """
        self._identities.get(target)
        body = dump(payload).encode()
        _check(name, body, response_seconds, connect_seconds)
        link = await self._links.ready(
            target, REQUESTS_FILTER, connect_seconds, reachable=lambda: from_device or not self._cut_off(target)
        )
        if link is None:
            raise HubError(404, "DeviceNotOnline", f"{target} is not connected or takes no direct methods")
        request = str(next(self._numbers))
        answer: asyncio.Future[MethodResult] = asyncio.get_running_loop().create_future()
        self._pending[target, request] = answer
        try:
            link.send(f"$iothub/methods/POST/{quote(name, safe='')}/?$rid={request}", body)
            async with asyncio.timeout(response_seconds):
                result = await answer
        except TimeoutError:
            raise _too_late(target, name, f"within {response_seconds} s") from None
        finally:
            del self._pending[target, request]
        if not from_device and self._cut_off(target):
            raise _too_late(target, name, "before the device went offline")
        return result

    def answered(self, sender: IdentityName, request: str, status: int, body: bytes) -> None:
        """An answer came in; late or unasked ones are dropped.

        Raises:
            HubError: the answer is not JSON or too large. The caller of the method is told, too.
        """
        answer = self._pending.get((sender, request))
        if answer is None or answer.done():
            return
        try:
            if len(body) > MAX_PAYLOAD_BYTES:
                raise bad_request(f"a method's answer has at most {MAX_PAYLOAD_BYTES} bytes")
            payload = load(body, "answer") if body else None
        except HubError as error:
            answer.set_exception(HubError(502, "BadDeviceResponse", f"{sender} answered badly: {error.what}"))
            raise
        answer.set_result(MethodResult(status, payload))


def _too_late(target: IdentityName, name: str, limit: str) -> HubError:
    return HubError(504, "GatewayTimeout", f"{target} did not answer {name!r} {limit}")


def _check(name: str, body: bytes, response_seconds: int, connect_seconds: int) -> None:
    if not name or len(name) > MAX_NAME_CHARACTERS:
        raise bad_request(f"a method's name has 1 to {MAX_NAME_CHARACTERS} characters")
    if len(body) > MAX_PAYLOAD_BYTES:
        raise HubError(413, "MessageTooLarge", f"a method's payload has at most {MAX_PAYLOAD_BYTES} bytes")
    if not MIN_RESPONSE_SECONDS <= response_seconds <= MAX_RESPONSE_SECONDS:
        raise bad_request(f"responseTimeoutInSeconds is {MIN_RESPONSE_SECONDS} to {MAX_RESPONSE_SECONDS}")
    if not 0 <= connect_seconds <= MAX_CONNECT_SECONDS:
        raise bad_request(f"connectTimeoutInSeconds is 0 to {MAX_CONNECT_SECONDS}")
