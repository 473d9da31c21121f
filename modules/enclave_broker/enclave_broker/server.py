"""The HTTPS side: routes, limits, and what a request says besides its payload."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import ssl
import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
import structlog
from aiohttp import web

from edgeclave.edge.link.messages import MAX_ACKNOWLEDGED_CALLS, MAX_DEADLINE_MS, NAME_PATTERN, CallId
from edgeclave.errors import ConfigurationError, EdgeclaveError
from enclave_broker.callers import Callers
from enclave_broker.openapi import document
from enclave_broker.operations import DEFAULT_DEADLINE_MS, Operations
from enclave_broker.responses import (
    AcknowledgeAnswer,
    EvidenceAnswer,
    RefusalError,
    error_response,
    invoke_answer,
    json_response,
)

PORT = 8443
MAX_BODY_BYTES = 1024 * 1024
CALL_ID_HEADER = "Edgeclave-Call-Id"
DEADLINE_HEADER = "Edgeclave-Deadline-Ms"
KEEP_ALIVE_SECONDS = 75.0
STOP_SECONDS = 2.0
"""How long `stop` lets requests in progress finish."""

_NAME = re.compile(NAME_PATTERN)
_NONCE = re.compile(r"[A-Za-z0-9_-]{11,86}={0,2}\Z")
_log = structlog.get_logger(__name__)


class AcknowledgeBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Calls whose results the caller has stored."""

    call_ids: Annotated[tuple[CallId, ...], msgspec.Meta(min_length=1, max_length=MAX_ACKNOWLEDGED_CALLS)]


_acknowledge_decoder = msgspec.json.Decoder(AcknowledgeBody)
_raw_decoder = msgspec.json.Decoder(msgspec.Raw)


class BrokerServer:
    """Serves callers over mTLS.

    Args:
        context: server context that requires client certificates from the trust bundle; a chain loaded into it later
            is used from the next handshake on.
    """

    def __init__(self, operations: Operations, callers: Callers, context: ssl.SSLContext) -> None:
        self._operations = operations
        self._callers = callers
        self._context = context
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=STOP_SECONDS,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
        )

    async def start(self, host: str, port: int = PORT) -> int:
        """Listen; returns the port (of use with port 0)."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, ssl_context=self._context).start()
        except OSError as error:
            raise ConfigurationError(
                "port-in-use",
                f"the broker's port cannot be opened: {error.strerror}",
                where=f"{host}:{port}",
                advice="run one process of this module at a time, or give it another address in EDGECLAVE_LISTEN",
            ) from error
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Take no more requests; let those in progress end within STOP_SECONDS."""
        await self._runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_answer_errors])
        application.router.add_post("/v1/trusted-apps/{trustedApp}/methods/{method}", self._invoke)
        application.router.add_post("/v1/trusted-apps/{trustedApp}/acknowledgements", self._acknowledge)
        application.router.add_get("/v1/trusted-apps/{trustedApp}/evidence", self._evidence, allow_head=False)
        application.router.add_get("/v1/trusted-apps", self._list, allow_head=False)
        application.router.add_get("/openapi.json", self._openapi, allow_head=False)
        return application

    async def _invoke(self, request: web.Request) -> web.Response:
        caller = self._callers.identify(request)
        deadline = _deadline(request)
        trusted_app, method = _name(request, "trustedApp"), _name(request, "method")
        call_id = request.headers.get(CALL_ID_HEADER) or uuid.uuid4().hex
        if not _NAME.match(call_id):
            advice = "use 1 to 128 of the characters A-Z a-z 0-9 . _ -"
            raise RefusalError(400, "malformed-call-id", f"{CALL_ID_HEADER} is no call id", advice=advice)
        payload = _json_text(await _body(request, deadline))
        reply = await self._operations.invoke(caller, trusted_app, method, payload, call_id=call_id, deadline=deadline)
        return json_response(invoke_answer(call_id, reply))

    async def _acknowledge(self, request: web.Request) -> web.Response:
        caller = self._callers.identify(request)
        deadline = _deadline(request)
        trusted_app = _name(request, "trustedApp")
        try:
            body = _acknowledge_decoder.decode(await _body(request, deadline))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            advice = 'send {"callIds": ["..."]}'
            raise RefusalError(400, "malformed-body", f"the body cannot be used: {error}", advice=advice) from error
        count = await self._operations.acknowledge(caller, trusted_app, body.call_ids, deadline=deadline)
        return json_response(AcknowledgeAnswer(count))

    async def _evidence(self, request: web.Request) -> web.Response:
        caller = self._callers.identify(request)
        trusted_app = _name(request, "trustedApp")
        nonce = read_nonce(request.query.get("nonce"))
        evidence = await self._operations.evidence(caller, trusted_app, nonce, deadline=_deadline(request))
        return json_response(EvidenceAnswer(trusted_app, evidence))

    async def _list(self, request: web.Request) -> web.Response:
        caller = self._callers.identify(request)
        return json_response(await self._operations.list_trusted_apps(caller, deadline=_deadline(request)))

    async def _openapi(self, request: web.Request) -> web.Response:
        self._callers.identify(request)
        return web.Response(body=document(), content_type="application/json")


def read_nonce(text: str | None) -> bytes | None:
    """A nonce from base64url, with or without padding. Raises RefusalError(400, malformed-nonce)."""
    if text is None:
        return None
    try:
        if _NONCE.match(text):
            nonce = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            if 8 <= len(nonce) <= 64:
                return nonce
    except binascii.Error:
        pass
    raise RefusalError(
        400, "malformed-nonce", "the nonce is not 8 to 64 bytes in base64url", advice="send fresh random bytes"
    )


def _deadline(request: web.Request) -> float:
    milliseconds = DEFAULT_DEADLINE_MS
    text = request.headers.get(DEADLINE_HEADER)
    if text is not None:
        milliseconds = int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else 0
        if not 1 <= milliseconds <= MAX_DEADLINE_MS:
            what = f"{DEADLINE_HEADER} is not a number from 1 to {MAX_DEADLINE_MS}"
            raise RefusalError(400, "malformed-deadline", what, advice="give milliseconds")
    return asyncio.get_running_loop().time() + milliseconds / 1000


def _name(request: web.Request, parameter: str) -> str:
    name = request.match_info[parameter]
    if not _NAME.match(name):
        raise RefusalError(400, "malformed-name", f"{parameter} is no name", advice="use letters, digits, . _ -")
    return name


async def _body(request: web.Request, deadline: float) -> bytes:
    try:
        async with asyncio.timeout_at(deadline):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        what = f"the body has more than {MAX_BODY_BYTES} bytes"
        raise RefusalError(413, "payload-too-large", what, advice="send fewer readings per call") from error
    except TimeoutError as error:
        raise RefusalError(408, "body-too-slow", "the body did not arrive before the request's deadline") from error


def _json_text(body: bytes) -> str:
    """The body as it is, once it is known to be JSON."""
    try:
        _raw_decoder.decode(body)
        return body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = f"the body is not JSON in UTF-8: {error}"
        raise RefusalError(
            400, "payload-not-json", what, advice="send one JSON value; null if there is nothing to say"
        ) from error


@web.middleware
async def _answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except EdgeclaveError as error:
        response = error_response(error)
        if error.code == "certificate-expired":
            response.force_close()
        return response
    except web.HTTPException as error:
        code = "no-such-path" if error.status == 404 else "method-not-allowed" if error.status == 405 else "bad-request"
        refusal = RefusalError(error.status, code, f"{error.reason}", advice="see /openapi.json")
        return error_response(refusal)
    except Exception:
        _log.exception("request failed", path=request.path)
        return error_response(
            RefusalError(500, "internal-error", "the broker failed on this request", advice="see its log")
        )
