"""Call trusted applications from a workload, through this device's enclave_broker.

    async with Client.from_edge_environment() as client:
        outcome = await client.invoke("anomaly", "observe", {"readings": [...]}, call_id="batch-17")
        store(outcome.results)                              # durably
        await client.acknowledge("anomaly", [outcome.call_id])

A call is a transaction with an id: repeated with the same id it gets the same answer, and nothing happens twice. So the
client repeats it when the broker or ta_runner is away or busy, until `total_seconds` are over; and a workload that was
killed between `invoke` and `acknowledge` repeats it too.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
import msgspec

from edgeclave.edge.certificates import CertificateKeeper
from edgeclave.edge.identity import expect_server
from edgeclave.edge.workload import WorkloadClient
from edgeclave.errors import EdgeclaveError

BROKER = "enclave_broker"
BROKER_URL = "https://enclave_broker:8443"
MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""The link between broker and runner carries 2 MiB; base64 and JSON make more of it."""
TOTAL_SECONDS = 60.0
ATTEMPT_SECONDS = 30.0
"""One attempt's deadline, passed on to the trusted application."""
ANSWER_SECONDS = 3.0
"""Longer than an attempt's deadline that its answer, or the refusal, may take to get here."""
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 5.0
_RETRIED_STATUSES = frozenset({408, 429})
"""Besides all from 500: what is wrong on the other side may be right the next time."""
_RETRIED_CODES = frozenset({"certificate-expired"})


class CallRefused(EdgeclaveError):  # noqa: N818 - says what happened, as its siblings do
    """The broker refuses the call and will refuse it again: not allowed, unknown, malformed or too large."""

    def __init__(self, status: int, code: str, what: str, *, where: str, advice: str) -> None:
        super().__init__(code, what, where=where, advice=advice)
        self.status = status


class TrustedAppFailure(EdgeclaveError):  # noqa: N818 - the field's word
    """The trusted application answered with a failure; nothing of the call was committed."""

    def __init__(self, status: int, message: str, *, where: str) -> None:
        super().__init__("trusted-app-failure", f"the trusted application failed with {status}: {message}", where=where)
        self.status = status
        self.message = message


class BrokerUnavailable(EdgeclaveError):  # noqa: N818 - a state, not a mistake
    """No answer until the time was over. Whether the call was executed is not known: repeat it with the same id."""


class SealedResult(msgspec.Struct, frozen=True):
    """One sealed result; `sealed` are the COSE bytes to send upstream."""

    output: str
    sequence: int
    sealed: bytes


@dataclass(frozen=True)
class Outcome:
    """What the trusted application answered."""

    call_id: str
    payload: Any
    results: tuple[SealedResult, ...]


class _Answer(msgspec.Struct, rename="camel"):
    call_id: str
    status: int
    results: tuple[SealedResult, ...] = ()
    payload: msgspec.Raw = msgspec.Raw(b"null")
    message: str | None = None


class _ErrorDetail(msgspec.Struct):
    code: str = "unknown"
    what: str = "no reason was given"
    advice: str = ""


class _Error(msgspec.Struct):
    error: _ErrorDetail


class _Acknowledged(msgspec.Struct):
    acknowledged: int


_Decoded = TypeVar("_Decoded")
_answer_decoder = msgspec.json.Decoder(_Answer)
_acknowledged_decoder = msgspec.json.Decoder(_Acknowledged)
_error_decoder = msgspec.json.Decoder(_Error)


class Client:
    """One keep-alive session with the broker. Enter it before use.

    Args:
        keeper: gives this module's identity certificate, and renews it while the client is entered.
        url: the broker; `https_proxy` of the environment is honoured.
    """

    def __init__(self, keeper: CertificateKeeper, *, url: str = BROKER_URL) -> None:
        self._keeper = keeper
        self._url = url
        self._renewal: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_edge_environment(cls, *, url: str = BROKER_URL) -> Client:
        """A client for the module that edgeAgent started. Raises ConfigurationError when it did not."""
        return cls(CertificateKeeper(WorkloadClient.from_environment()), url=url)

    async def __aenter__(self) -> Client:
        context = await self._keeper.client_context()
        expect_server(context, BROKER)
        self._renewal = asyncio.create_task(self._keeper.run())
        self._session = aiohttp.ClientSession(trust_env=True, connector=aiohttp.TCPConnector(ssl=context))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def invoke(
        self,
        trusted_app: str,
        method: str,
        payload: Any,
        *,
        call_id: str | None = None,
        total_seconds: float = TOTAL_SECONDS,
    ) -> Outcome:
        """Call a method, repeating it with the same call id while that may help.

        Args:
            payload: anything that msgspec writes as JSON.
            call_id: 1 to 128 of A-Z a-z 0-9 . _ -; a fresh one when left out.

        Raises:
            CallRefused, TrustedAppFailure, BrokerUnavailable.
        """
        call_id = call_id or uuid.uuid4().hex
        path = f"/v1/trusted-apps/{trusted_app}/methods/{method}"
        body = await self._post(path, payload, {"Edgeclave-Call-Id": call_id}, total_seconds, _answer_decoder)
        if body.status != 200:
            raise TrustedAppFailure(body.status, body.message or "no message", where=f"{trusted_app}/{method}")
        return Outcome(body.call_id, msgspec.json.decode(body.payload), body.results)

    async def acknowledge(
        self, trusted_app: str, call_ids: Sequence[str], *, total_seconds: float = TOTAL_SECONDS
    ) -> int:
        """Tell ta_runner that the results of these calls are stored; returns how many it still had.

        Raises:
            CallRefused, BrokerUnavailable.
        """
        path = f"/v1/trusted-apps/{trusted_app}/acknowledgements"
        answer = await self._post(path, {"callIds": list(call_ids)}, {}, total_seconds, _acknowledged_decoder)
        return answer.acknowledged

    async def _post(
        self,
        path: str,
        payload: Any,
        headers: dict[str, str],
        total_seconds: float,
        decoder: msgspec.json.Decoder[_Decoded],
    ) -> _Decoded:
        body = msgspec.json.encode(payload)
        end = time.monotonic() + total_seconds
        delay = FIRST_RETRY_SECONDS
        reason = "no time was given"
        while (left := end - time.monotonic()) > 0:
            try:
                return decoder.decode(await self._attempt(path, body, headers, min(left, ATTEMPT_SECONDS)))
            except _TryAgain as error:
                reason, wait = error.reason, error.after_seconds
            except msgspec.DecodeError as error:
                reason, wait = f"the broker's answer cannot be read: {error}", 0.0
            # Spread out, so that workloads which were sent away together do not come back in step.
            wait = max(wait, delay * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            delay = min(delay * 2, LONGEST_RETRY_SECONDS)
            await asyncio.sleep(min(wait, max(end - time.monotonic(), 0)))
        raise BrokerUnavailable(
            "broker-unavailable",
            f"no answer within {total_seconds:g} s: {reason}",
            where=self._url + path,
            advice="repeat the call with the same call id; nothing happens twice",
        )

    async def _attempt(self, path: str, body: bytes, headers: dict[str, str], seconds: float) -> bytes:
        """The body of a 200. Raises _TryAgain or CallRefused."""
        assert self._session is not None, "enter the client first"
        headers = {
            "Content-Type": "application/json",
            "Edgeclave-Deadline-Ms": str(max(int(seconds * 1000), 1)),
            **headers,
        }
        timeout = aiohttp.ClientTimeout(total=seconds + ANSWER_SECONDS)
        url = self._url + path
        try:
            async with self._session.post(url, data=body, headers=headers, timeout=timeout) as response:
                if response.content_length is None or response.content_length > MAX_ANSWER_BYTES:
                    raise _TryAgain(f"the broker's answer has {response.content_length} bytes")
                answer = await response.read()
        except aiohttp.ClientConnectorCertificateError as error:
            raise _TryAgain(str(error.certificate_error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _TryAgain(str(error) or type(error).__name__) from error
        if response.status == 200:
            return answer
        try:
            detail = _error_decoder.decode(answer).error
        except msgspec.DecodeError:
            detail = _ErrorDetail(what=f"HTTP {response.status}")
        if response.status >= 500 or response.status in _RETRIED_STATUSES or detail.code in _RETRIED_CODES:
            raise _TryAgain(f"{detail.what} [{detail.code}]", _seconds(response.headers.get("Retry-After")))
        raise CallRefused(response.status, detail.code, detail.what, where=url, advice=detail.advice)


class _TryAgain(Exception):  # noqa: N818 - never leaves this file
    def __init__(self, reason: str, after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after_seconds = after_seconds


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= 4 else 0.0
