"""The connecting end of the link (enclave_broker)."""

from __future__ import annotations

import asyncio
import itertools
import random
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import overload

import aiohttp
import structlog

from edgeclave.edge.identity import expect_server
from edgeclave.edge.link.messages import (
    HEARTBEAT_SECONDS,
    LINK_PROTOCOL,
    MAX_IN_FLIGHT,
    MAX_MESSAGE_BYTES,
    Acknowledge,
    AcknowledgeReply,
    Call,
    CallReply,
    EvidenceReply,
    GetEvidence,
    LinkError,
    List,
    ListReply,
    Problem,
    Reply,
    Request,
    decode_reply,
    encode,
)

CONNECT_SECONDS = 10.0
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 5.0
RETRY_AFTER_SECONDS = 1.0
"""What a caller is told while the link is down: longer than most reconnects take."""

_REPLY_KINDS: dict[type[Request], type[Reply]] = {
    Call: CallReply,
    Acknowledge: AcknowledgeReply,
    GetEvidence: EvidenceReply,
    List: ListReply,
}

_log = structlog.get_logger("link")


class LinkClient:
    """Keeps one link up and carries many requests at a time over it.

    Args:
        url: `https://ta_runner:8444/link`; `https_proxy` of the environment is honoured.
        context: client context with this module's identity certificate. A certificate loaded into it later is used
            from the next connection on.
        server_name: module id that the server's certificate must name, and it alone.
        on_change: called with True when the link comes up and False when it goes down.
    """

    def __init__(
        self,
        url: str,
        context: ssl.SSLContext,
        *,
        server_name: str,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        expect_server(context, server_name)
        self._url = url
        self._context = context
        self._server_name = server_name
        self._on_change = on_change or (lambda _: None)
        self._pending: dict[int, tuple[type[Reply], asyncio.Future[Reply]]] = {}
        self._ids = itertools.count(1)
        self._connection: aiohttp.ClientWebSocketResponse | None = None
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.reason = "not connected yet"
        """Why the link is down, for people."""

    @property
    def up(self) -> bool:
        """Whether requests can be sent now."""
        return self._up.is_set()

    @property
    def in_flight(self) -> int:
        """Requests that wait for their reply."""
        return len(self._pending)

    async def wait_until_up(self) -> None:
        """Return once the link is up."""
        await self._up.wait()

    async def __aenter__(self) -> LinkClient:
        self._task = asyncio.create_task(self._keep_up())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @overload
    async def request(self, message: Call, *, timeout_seconds: float) -> CallReply: ...
    @overload
    async def request(self, message: Acknowledge, *, timeout_seconds: float) -> AcknowledgeReply: ...
    @overload
    async def request(self, message: GetEvidence, *, timeout_seconds: float) -> EvidenceReply: ...
    @overload
    async def request(self, message: List, *, timeout_seconds: float) -> ListReply: ...
    async def request(self, message: Request, *, timeout_seconds: float) -> Reply:
        """Send a request and wait for its reply.

        Raises:
            LinkError: link-down (not sent), link-lost (sent, no answer came: repeat it with the same call id),
                link-busy, link-timeout, message-too-large, or what the runner's Problem says.
        """
        connection = self._connection
        if connection is None or connection.closed:
            raise LinkError(
                "link-down",
                f"there is no connection to {self._server_name}: {self.reason}",
                advice=f"check that {self._server_name} runs; the connection is retried all the time",
                retry_after=RETRY_AFTER_SECONDS,
            )
        if len(self._pending) >= MAX_IN_FLIGHT:
            what = f"{MAX_IN_FLIGHT} requests wait for {self._server_name} already"
            raise LinkError("link-busy", what, retry_after=RETRY_AFTER_SECONDS)
        message.id = next(self._ids)
        data = encode(message)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending[message.id] = (_REPLY_KINDS[type(message)], future)
        try:
            async with asyncio.timeout(timeout_seconds):
                await connection.send_bytes(data)
                return await future
        except TimeoutError as error:
            raise LinkError(
                "link-timeout",
                f"{self._server_name} did not answer within {timeout_seconds:.1f} s",
                advice="repeat the call with the same call id",
                retry_after=RETRY_AFTER_SECONDS,
            ) from error
        except ConnectionError as error:
            raise self._lost() from error
        finally:
            del self._pending[message.id]
            if future.done() and not future.cancelled():
                future.exception()  # seen: sending may have failed in the same moment

    async def _keep_up(self) -> None:
        delay = FIRST_RETRY_SECONDS
        connector = aiohttp.TCPConnector(ssl=self._context, force_close=True)
        async with aiohttp.ClientSession(trust_env=True, connector=connector) as session:
            while True:
                try:
                    async with asyncio.timeout(CONNECT_SECONDS):
                        connection = await session.ws_connect(
                            self._url,
                            protocols=(LINK_PROTOCOL,),
                            heartbeat=HEARTBEAT_SECONDS,
                            max_msg_size=MAX_MESSAGE_BYTES,
                            compress=0,
                        )
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    self._explain(_reason(error))
                else:
                    delay = FIRST_RETRY_SECONDS
                    await self._serve(connection)
                # Spread out, so that two ends that fail together do not meet in step for ever.
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                delay = min(delay * 2, LONGEST_RETRY_SECONDS)

    async def _serve(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self._connection = connection
        self._up.set()
        self._on_change(True)
        _log.info("link up", server=self._server_name)
        reason = "the connection was lost"
        try:
            async for message in connection:
                self._dispatch(decode_reply(message.data))
            if connection.close_code is not None and connection.close_code != aiohttp.WSCloseCode.ABNORMAL_CLOSURE:
                reason = f"{self._server_name} closed the connection (code {connection.close_code})"
        except LinkError as error:
            reason = str(error)
        except asyncio.CancelledError:
            reason = "this end is stopping"
            raise
        finally:
            self._connection = None
            self._up.clear()
            self._explain(reason)
            for _, future in self._pending.values():
                if not future.done():
                    future.set_exception(self._lost())
            self._on_change(False)
            await connection.close()

    def _dispatch(self, reply: Reply | Problem) -> None:
        kind, future = self._pending.get(reply.id, (None, None))
        if kind is None or future is None or future.done():
            return  # its request timed out
        if isinstance(reply, Problem):
            future.set_exception(LinkError(reply.code, reply.what, advice=reply.advice, retry_after=reply.retry_after))
        elif isinstance(reply, kind):
            future.set_result(reply)
        else:
            raise LinkError("malformed-message", f"the peer answered with {type(reply).__name__} for {kind.__name__}")

    def _lost(self) -> LinkError:
        return LinkError(
            "link-lost",
            f"the connection to {self._server_name} was lost before the answer came",
            advice="repeat the call with the same call id",
            retry_after=RETRY_AFTER_SECONDS,
        )

    def _explain(self, reason: str) -> None:
        if reason != self.reason:
            _log.warning("link down", server=self._server_name, reason=reason)
        self.reason = reason


def _reason(error: BaseException) -> str:
    match error:
        case aiohttp.WSServerHandshakeError(status=403):
            return "the server refuses this module's identity (403)"
        case aiohttp.WSServerHandshakeError(status=status):
            return f"the server does not speak {LINK_PROTOCOL} (HTTP {status})"
        case aiohttp.ClientConnectorCertificateError():
            return str(error.certificate_error)
        case TimeoutError():
            return f"no connection within {CONNECT_SECONDS:.0f} s"
        case _:
            return str(error) or type(error).__name__
