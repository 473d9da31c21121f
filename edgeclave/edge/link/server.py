"""The listening end of the link (ta_runner)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import WSCloseCode, web

from edgeclave.edge.identity import IdentityError, ModuleIdentity, peer_identity
from edgeclave.edge.link.messages import (
    HEARTBEAT_SECONDS,
    LINK_PATH,
    LINK_PORT,
    LINK_PROTOCOL,
    MAX_IN_FLIGHT,
    MAX_MESSAGE_BYTES,
    LinkError,
    Problem,
    Reply,
    Request,
    decode_request,
    encode,
)
from edgeclave.errors import EdgeclaveError

Handler = Callable[[Request], Awaitable[Reply]]
MAX_CONNECTIONS = 4
"""The broker holds one; a restarted broker's new one may overlap the old one's end."""
STOP_SECONDS = 3.0
"""How long `stop` lets requests in progress finish."""

_log = structlog.get_logger("link")


class LinkServer:
    """Serves the link to one identity.

    Args:
        handler: answers a request; an EdgeclaveError that it raises becomes a Problem. It runs to its end even when
            the connection goes away meanwhile, because a call is a transaction that its caller will ask for again.
        context: server context that requires client certificates from the trust bundle.
        allowed: the only module that may use the link.
    """

    def __init__(self, handler: Handler, context: ssl.SSLContext, allowed: ModuleIdentity) -> None:
        self._handler = handler
        self._context = context
        self._allowed = allowed
        self._connections: set[web.WebSocketResponse] = set()
        self._requests: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self._stopping = False

    async def start(self, host: str, port: int = LINK_PORT) -> int:
        """Listen; returns the port (of use with port 0)."""
        application = web.Application()
        application.router.add_get(LINK_PATH, self._serve)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=STOP_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=self._context)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Refuse new requests, let those in progress end within STOP_SECONDS, close."""
        self._stopping = True
        if self._requests:
            _, unfinished = await asyncio.wait(self._requests, timeout=STOP_SECONDS)
            for task in unfinished:
                task.cancel()
        for connection in tuple(self._connections):
            await connection.close(code=WSCloseCode.GOING_AWAY, message=b"stopping")
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal is not None:
            _log.warning("link refused", reason=refusal, remote=request.remote)
            return web.Response(status=403, text=refusal)
        connection = web.WebSocketResponse(
            protocols=(LINK_PROTOCOL,), heartbeat=HEARTBEAT_SECONDS, max_msg_size=MAX_MESSAGE_BYTES, compress=False
        )
        if LINK_PROTOCOL not in request.headers.get("Sec-WebSocket-Protocol", ""):
            return web.Response(status=400, text=f"this link speaks {LINK_PROTOCOL}: run the same release at both ends")
        await connection.prepare(request)
        self._connections.add(connection)
        _log.info("link up", peer=str(self._allowed))
        try:
            async for message in connection:
                await self._accept(connection, decode_request(message.data))
        except LinkError as error:
            _log.warning("link closed", code=error.code, reason=error.what)
            await connection.close(code=WSCloseCode.POLICY_VIOLATION, message=error.code.encode())
        finally:
            self._connections.discard(connection)
            _log.info("link down", peer=str(self._allowed))
        return connection

    def _refusal(self, request: web.Request) -> str | None:
        try:
            transport = request.transport
            caller = peer_identity(transport.get_extra_info("ssl_object") if transport is not None else None)
        except IdentityError as error:
            return str(error)
        if caller != self._allowed:
            return f"this link is for {self._allowed}, not for {caller}"
        if self._stopping:
            return "ta_runner is stopping"
        if len(self._connections) >= MAX_CONNECTIONS:
            return f"{MAX_CONNECTIONS} links are open already"
        return None

    async def _accept(self, connection: web.WebSocketResponse, request: Request) -> None:
        if self._stopping or len(self._requests) >= MAX_IN_FLIGHT:
            what = "ta_runner is stopping" if self._stopping else f"{MAX_IN_FLIGHT} requests are in progress already"
            # Awaited here, so that a peer that does not read its refusals cannot pile them up.
            await _send(connection, request, Problem(code="link-busy", what=what, retry_after=1.0))
            return
        task = asyncio.create_task(self._answer(connection, request))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _answer(self, connection: web.WebSocketResponse, request: Request) -> None:
        reply: Reply | Problem
        try:
            reply = await self._handler(request)
        except EdgeclaveError as error:
            reply = _problem(error)
        except Exception:
            _log.exception("request failed", request=type(request).__name__)
            reply = Problem(
                code="internal-error", what="ta_runner failed to answer", advice="see ta_runner's log", retry_after=1.0
            )
        await _send(connection, request, reply)


async def _send(connection: web.WebSocketResponse, request: Request, reply: Reply | Problem) -> None:
    reply.id = request.id
    try:
        data = encode(reply)
    except LinkError as error:
        problem = _problem(error)
        problem.id = request.id
        data = encode(problem)
    # A connection that went away needs no answer: the caller repeats its call id on the next one.
    with contextlib.suppress(ConnectionError):
        await connection.send_bytes(data)


def _problem(error: EdgeclaveError) -> Problem:
    return Problem(
        code=error.code,
        what=f"{error.what} ({error.where})" if error.where else error.what,
        advice=error.advice,
        retry_after=getattr(error, "retry_after", None),
    )
