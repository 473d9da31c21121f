"""The IoT Edge workload API: this module's certificates and the trust bundle, over its unix socket."""

from __future__ import annotations

import asyncio
import os
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec

from edgeclave.errors import ConfigurationError, EdgeclaveError

CERTIFICATE_LIFETIME = timedelta(days=7)
"""Asked for; the workload API may give less."""
MAX_RESPONSE_BYTES = 1 << 20
REQUEST_TIMEOUT_SECONDS = 30
ATTEMPTS = 4
"""The real daemon closes the connection without a reply when it has ten requests under way."""
API_VERSION = "2020-07-07"

T = TypeVar("T")


class WorkloadError(EdgeclaveError):
    """The workload API refused or cannot be reached."""


@dataclass(frozen=True)
class Certificate:
    """A certificate with its private key. Never log it."""

    chain_pem: str
    private_key_pem: str

    def __repr__(self) -> str:
        return "Certificate(...)"


class _PrivateKey(msgspec.Struct):
    type: str
    bytes: str = ""


class _CertificateResponse(msgspec.Struct, rename="camel"):
    private_key: _PrivateKey
    certificate: str


class _TrustBundle(msgspec.Struct):
    certificate: str


class _Failure(msgspec.Struct):
    message: str = ""


class WorkloadClient:
    """Client of the workload API as edgeAgent's environment names it."""

    def __init__(self, *, socket: Path, module_id: str, generation_id: str, device_id: str, hub_name: str) -> None:
        self._socket = socket
        self._generation_id = generation_id
        self.module_id = module_id
        self.device_id = device_id
        self.hub_name = hub_name

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> WorkloadClient:
        """From the variables that edgeAgent sets.

        Raises:
            ConfigurationError: `not-on-iot-edge`, `unsupported-workload-uri`.
        """
        uri = _variable(environment, "IOTEDGE_WORKLOADURI")
        parts = urllib.parse.urlsplit(uri)
        if parts.scheme != "unix" or not parts.path:
            raise ConfigurationError(
                "unsupported-workload-uri", "the workload API must be a unix socket", where=f"IOTEDGE_WORKLOADURI={uri}"
            )
        return cls(
            socket=Path(parts.path),
            module_id=_variable(environment, "IOTEDGE_MODULEID"),
            generation_id=_variable(environment, "IOTEDGE_MODULEGENERATIONID"),
            device_id=_variable(environment, "IOTEDGE_DEVICEID"),
            hub_name=_variable(environment, "IOTEDGE_IOTHUBHOSTNAME"),
        )

    async def server_certificate(self, common_name: str) -> Certificate:
        """A certificate with serverAuth for `common_name`; its SANs are that name and this module's id."""
        module = urllib.parse.quote(self.module_id, safe="")
        generation = urllib.parse.quote(self._generation_id, safe="")
        return await self._certificate(
            f"/modules/{module}/genid/{generation}/certificate/server", {"commonName": common_name}
        )

    async def identity_certificate(self) -> Certificate:
        """A certificate with clientAuth that names this module."""
        return await self._certificate(
            f"/modules/{urllib.parse.quote(self.module_id, safe='')}/certificate/identity", {}
        )

    async def trust_bundle(self) -> str:
        """PEM of the certificates that module and server certificates of this device chain to."""
        return (await self._request("GET", "/trust-bundle", None, _TrustBundle)).certificate

    async def _certificate(self, path: str, members: dict[str, str]) -> Certificate:
        expiration = (datetime.now(UTC) + CERTIFICATE_LIFETIME).strftime("%Y-%m-%dT%H:%M:%SZ")
        response = await self._request("POST", path, {**members, "expiration": expiration}, _CertificateResponse)
        if response.private_key.type != "key":
            raise WorkloadError(
                "workload-response", "the workload API kept the private key to itself", where=path, advice=""
            )
        return Certificate(response.certificate, response.private_key.bytes)

    async def _request(self, method: str, path: str, body: dict[str, str] | None, response_type: type[T]) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                status, content = await self._exchange(method, path, body)
                break
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if attempt == ATTEMPTS:
                    raise WorkloadError(
                        "workload-unavailable",
                        f"the workload API does not answer: {type(error).__name__}",
                        where=str(self._socket),
                        advice="check that IoT Edge (or the simulator) runs",
                    ) from error
                await asyncio.sleep(0.2 * 2**attempt)
        try:
            if status >= 400:
                message = msgspec.json.decode(content, type=_Failure).message
                raise WorkloadError("workload-refused", f"the workload API says {status}: {message[:200]}", where=path)
            return msgspec.json.decode(content, type=response_type)
        except msgspec.MsgspecError as error:
            raise WorkloadError("workload-response", f"not a workload API response ({status})", where=path) from error

    async def _exchange(self, method: str, path: str, body: dict[str, str] | None) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
        connector = aiohttp.UnixConnector(path=str(self._socket))
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(
                method, f"http://localhost{path}", params={"api-version": API_VERSION}, json=body
            ) as response,
        ):
            content = await response.content.read(MAX_RESPONSE_BYTES + 1)
            while not response.content.at_eof() and len(content) <= MAX_RESPONSE_BYTES:
                content += await response.content.read(MAX_RESPONSE_BYTES)
            if len(content) > MAX_RESPONSE_BYTES:
                raise WorkloadError("workload-response", "the workload API's response is too long", where=path)
            return response.status, content


def _variable(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise ConfigurationError(
            "not-on-iot-edge",
            f"{name} is not set",
            where="environment",
            advice="start the module by IoT Edge or `edgeclave sim up`, or source `edgeclave sim env MODULE_ID`",
        )
    return value
