"""Workload API requests of one module: sign, encrypt, decrypt, certificates, trust bundles.

The caller is who owns the socket: each module has its own, in a folder of this user only, and a request that names
another module is refused with 403. While the simulator itself runs a module, only that process and its children, or the
processes of that container, are served; a module that someone starts by hand is known by its user. Errors are
`{"message": ...}`, as aziot-edged writes them, and as there a socket serves ten requests at once: one more is cut off
without a reply.
"""

from __future__ import annotations

import base64
import datetime
import os
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from aiohttp import web
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edgeclave.simulator.edge_hub import EDGE_AGENT
from edgeclave.simulator.identities import HubIdentity, Identities, IdentityName
from edgeclave.simulator.log import logger
from edgeclave.simulator.pki import MAX_LEAF_LIFETIME, Issued, Pki
from edgeclave.simulator.sas import sign
from edgeclave.simulator.settings import Settings
from edgeclave.simulator.supervisor.module import NEVER
from edgeclave.simulator.supervisor.program import Program
from edgeclave.simulator.twins import Twins

API_VERSIONS = frozenset(
    {"2018-06-28", "2019-01-30", "2019-10-22", "2019-11-05", "2020-07-07", "2020-10-10", "2021-12-07", "2022-08-03"}
)
MAX_REQUEST_BYTES = 1 << 20
MAX_CONCURRENT_REQUESTS = 10  # of one socket, as aziot-edged has it
_NONCE_BYTES = 12
_UCRED = struct.Struct("3i")  # pid, uid, gid
_log = logger("workload")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Body = TypeVar("_Body")


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Sign(msgspec.Struct, rename="camel"):
    data: bytes
    key_id: Literal["primary", "secondary"] = "primary"
    algo: Literal["HMACSHA256"] = "HMACSHA256"


class _Encrypt(msgspec.Struct, rename="camel"):
    plaintext: bytes
    initialization_vector: bytes


class _Decrypt(msgspec.Struct, rename="camel"):
    ciphertext: Annotated[bytes, msgspec.Meta(min_length=_NONCE_BYTES)]
    initialization_vector: bytes


class _ServerCertificate(msgspec.Struct, rename="camel"):
    common_name: str
    expiration: datetime.datetime | None = None


class _IdentityCertificate(msgspec.Struct):
    expiration: datetime.datetime | None = None


class WorkloadApi:
    """What every module's socket answers from."""

    def __init__(self, identities: Identities, twins: Twins, pki: Pki, settings: Settings) -> None:
        """`program_of` is set by who runs modules: the program of a module, or None when it does not run here."""
        self.program_of: Callable[[str], Program | None] = lambda _module_id: None
        self._identities = identities
        self._twins = twins
        self._pki = pki
        self._settings = settings

    def application(self, owner: IdentityName, uid: int) -> web.Application:
        """The API on `owner`'s socket, for callers of this user id."""
        guarded = _Guard(owner, uid, lambda: self.program_of(owner.module_id))
        application = web.Application(middlewares=[guarded.middleware], client_max_size=MAX_REQUEST_BYTES)
        module, generation = "/modules/{module}", "/modules/{module}/genid/{generation}"
        application.add_routes(
            [
                web.get("/trust-bundle", self._trust_bundle),
                web.get("/manifest-trust-bundle", self._manifest_trust_bundle),
                web.get("/modules", self._modules),
                web.post(f"{generation}/sign", self._sign),
                web.post(f"{generation}/encrypt", self._encrypt),
                web.post(f"{generation}/decrypt", self._decrypt),
                web.post(f"{generation}/certificate/server", self._server_certificate),
                web.post(f"{module}/certificate/identity", self._identity_certificate),
            ]
        )
        return application

    async def _trust_bundle(self, _request: web.Request) -> web.Response:
        return web.json_response({"certificate": self._pki.root_pem})

    async def _manifest_trust_bundle(self, _request: web.Request) -> web.Response:
        raise _RefusedError(404, "there is no manifest trust bundle")

    async def _modules(self, _request: web.Request) -> web.Response:
        names = [identity.name.module_id for identity in self._identities.modules(self._settings.device_id)]
        agent = self._twins.at_edge(IdentityName(self._settings.device_id, EDGE_AGENT)).reported
        reported = {**agent.get("modules", {}), **{f"${name}": m for name, m in agent.get("systemModules", {}).items()}}
        return web.json_response({"modules": [_described(name, reported.get(name, {})) for name in names]})

    async def _sign(self, request: web.Request) -> web.Response:
        identity = self._caller(request)
        body = await _body(request, _Sign)
        key = identity.primary_key if body.key_id == "primary" else identity.secondary_key
        return web.json_response({"digest": _base64(sign(key, body.data))})

    async def _encrypt(self, request: web.Request) -> web.Response:
        identity = self._caller(request)
        body = await _body(request, _Encrypt)
        cipher, context = self._cipher(identity, body.initialization_vector)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return web.json_response({"ciphertext": _base64(nonce + cipher.encrypt(nonce, body.plaintext, context))})

    async def _decrypt(self, request: web.Request) -> web.Response:
        identity = self._caller(request)
        body = await _body(request, _Decrypt)
        cipher, context = self._cipher(identity, body.initialization_vector)
        nonce, ciphertext = body.ciphertext[:_NONCE_BYTES], body.ciphertext[_NONCE_BYTES:]
        try:
            plaintext = cipher.decrypt(nonce, ciphertext, context)
        except InvalidTag:
            raise _RefusedError(400, "this was not encrypted by this module with this initialization vector") from None
        return web.json_response({"plaintext": _base64(plaintext)})

    async def _server_certificate(self, request: web.Request) -> web.Response:
        identity = self._caller(request)
        body = await _body(request, _ServerCertificate)
        own = identity.name.module_id.removeprefix("$")
        names = list(dict.fromkeys((body.common_name, own)))
        try:
            issued = self._pki.server_certificate(body.common_name, names, _lifetime(body.expiration))
        except ValueError as error:
            raise _RefusedError(400, str(error)) from error
        return _certificate(issued)

    async def _identity_certificate(self, request: web.Request) -> web.Response:
        identity = self._caller(request)
        body = await _body(request, _IdentityCertificate, empty_allowed=True)
        name = identity.name
        uri = f"azureiot://{self._settings.hub_host}/devices/{name.device_id}/modules/{name.module_id}"
        try:
            issued = self._pki.identity_certificate(name.module_id[:64], uri, _lifetime(body.expiration))
        except ValueError as error:
            raise _RefusedError(400, str(error)) from error
        return _certificate(issued)

    def _caller(self, request: web.Request) -> HubIdentity:
        name = IdentityName(self._settings.device_id, request.match_info["module"])
        identity = self._identities.find(name)
        generation = request.match_info.get("generation")
        if identity is None or (generation is not None and generation != identity.generation_id):
            raise _RefusedError(403, f"there is no module {name.module_id} of this generation")
        return identity

    def _cipher(self, identity: HubIdentity, initialization_vector: bytes) -> tuple[AESGCM, bytes]:
        """One key per initialization vector, so that random nonces never meet under one key too often."""
        key = HKDF(hashes.SHA256(), 32, salt=None, info=b"edgeclave-simulator/workload|" + initialization_vector)
        context = (identity.name.module_id + identity.generation_id).encode()
        return AESGCM(key.derive(base64.b64decode(self._settings.sealing_key))), context


class _Guard:
    """Checks who is at the other end of the socket, and the API version, and tells errors as aziot-edged does."""

    def __init__(self, owner: IdentityName, uid: int, program: Callable[[], Program | None]) -> None:
        self._owner = owner
        self._uid = uid
        self._program = program
        self._active = 0

    @web.middleware
    async def middleware(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if self._active >= MAX_CONCURRENT_REQUESTS:
            _log.warning("too many requests at once", module=self._owner.module_id, limit=MAX_CONCURRENT_REQUESTS)
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=503)  # nobody is there to read it
        self._active += 1
        try:
            self._check(request)
            return await handler(request)
        except _RefusedError as refused:
            _log.warning("refused", module=self._owner.module_id, path=request.path[:256], reason=str(refused))
            return web.json_response({"message": str(refused)}, status=refused.status)
        except web.HTTPException as error:
            return web.json_response({"message": error.reason}, status=error.status)
        except Exception:
            _log.exception("failed", module=self._owner.module_id, path=request.path[:256])
            return web.json_response({"message": "the simulator failed; its log says why"}, status=500)
        finally:
            self._active -= 1

    def _check(self, request: web.Request) -> None:
        peer = request.get_extra_info("socket")
        pid, uid, _gid = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        program = self._program()
        owned = program.owns(pid) if program is not None else None
        if owned is None and uid != self._uid:
            raise _RefusedError(403, "this socket is for another user")
        if owned is False and pid != os.getpid():
            raise _RefusedError(403, f"the simulator runs {self._owner.module_id} itself; process {pid} is not it")
        version = request.query.get("api-version", "")
        if version not in API_VERSIONS:
            raise _RefusedError(400, f"unknown api-version {version[:40]!r}")
        module = request.match_info.get("module")
        if module is not None and module != self._owner.module_id:
            raise _RefusedError(403, f"this socket belongs to {self._owner.module_id}")


def _described(module_id: str, reported: dict[str, Any]) -> dict[str, Any]:
    exited = reported.get("lastExitTimeUtc", NEVER)
    return {
        "id": module_id,
        "name": module_id.removeprefix("$"),
        "type": reported.get("type", "process"),
        "config": {"settings": reported.get("settings", {}), "env": []},
        "status": {
            "startTime": reported.get("lastStartTimeUtc"),
            "exitStatus": (
                None if exited == NEVER else {"exitTime": exited, "statusCode": str(reported.get("exitCode", 0))}
            ),
            "runtimeStatus": {
                "status": reported.get("runtimeStatus", "unknown"),
                "description": reported.get("statusDescription"),
            },
        },
    }


async def _body(request: web.Request, kind: type[_Body], *, empty_allowed: bool = False) -> _Body:
    """Raw bytes whatever the content type says: azure-iot-device sends none."""
    raw = await request.read()
    try:
        return msgspec.json.decode(raw or (b"{}" if empty_allowed else b""), type=kind)
    except msgspec.DecodeError as error:
        raise _RefusedError(400, f"bad request: {error}") from error


def _lifetime(expiration: datetime.datetime | None) -> datetime.timedelta:
    if expiration is None:
        return MAX_LEAF_LIFETIME
    if expiration.tzinfo is None:
        expiration = expiration.replace(tzinfo=datetime.UTC)
    lifetime = expiration - datetime.datetime.now(datetime.UTC)
    if lifetime <= datetime.timedelta(0):
        raise _RefusedError(400, "the expiration is in the past")
    return min(lifetime, MAX_LEAF_LIFETIME)


def _certificate(issued: Issued) -> web.Response:
    return web.json_response(
        {
            "privateKey": {"type": "key", "bytes": issued.private_key},
            "certificate": issued.chain,
            "expiration": issued.expires.isoformat().replace("+00:00", "Z"),
        },
        status=201,
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
