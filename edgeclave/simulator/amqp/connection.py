"""One client: protocol headers, SASL, open, then frames until close (part 2 section 2.4, part 5)."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import structlog

from edgeclave.simulator.amqp import frames, management
from edgeclave.simulator.amqp.access import ANONYMOUS, CLAIMS_BASED, PLAIN, SharedAccessKeys, node_path
from edgeclave.simulator.amqp.commands import NODE, CommandNode
from edgeclave.simulator.amqp.log import MessageLog
from edgeclave.simulator.amqp.message import Message
from edgeclave.simulator.amqp.performatives import (
    SASL_AUTH,
    SASL_OK,
    Attach,
    Begin,
    Close,
    Composite,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Open,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    Transfer,
)
from edgeclave.simulator.amqp.receivers import Receivers
from edgeclave.simulator.amqp.session import CBS, MANAGEMENT, Session
from edgeclave.simulator.amqp.types import (
    CONNECTION_FORCED,
    FRAME_SIZE_TOO_SMALL,
    FRAMING_ERROR,
    NOT_ALLOWED,
    RESOURCE_LIMIT,
    UNAUTHORIZED,
    AmqpError,
    Array,
    Symbol,
)

HANDSHAKE_SECONDS = 30.0  # from connect to open
IDLE_SECONDS = 240.0  # a client that is silent for longer is closed; as Event Hubs
SHORTEST_IDLE_MS = 200  # of a client; below it heartbeats would be all the traffic
WATCH_SECONDS = 1.0  # how often heartbeats, silence and expired tokens are looked at
MAX_SESSIONS = 64  # per connection
MAX_GRANTS = 256  # audiences a connection holds tokens for
MIN_MAX_FRAME_BYTES = 512  # part 2, section 2.7.1
CONTAINER = "edgeclave-simulator"

_log = structlog.get_logger("edgeclave.simulator.amqp")


class Connection:
    """Serves one accepted stream until either side ends it; `run` never raises for what a peer does."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        log: MessageLog,
        access: SharedAccessKeys,
        receivers: Receivers,
        commands: CommandNode | None = None,
    ) -> None:
        self.log = log
        self.receivers = receivers
        self.commands = commands
        self.hub_name = access.hub_name
        self.max_frame_size = MIN_MAX_FRAME_BYTES
        self._reader = reader
        self._writer = writer
        self._access = access
        self._all_granted = False
        self._grants: dict[str, int] = {}
        self._sessions: dict[int, Session] = {}
        self._ended: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._peer_idle_seconds: float | None = None
        self._last_sent = self._last_received = time.monotonic()
        self._watcher: asyncio.Task[None] | None = None
        self._opened = self._closed = False

    async def run(self) -> None:
        try:
            await self._serve()
        except AmqpError as error:
            _log.info("amqp connection refused", condition=error.condition, reason=error.description)
            self.close(error)
        except (OSError, EOFError, TimeoutError):
            pass  # the peer is gone, or never said what it wanted
        finally:
            if self._watcher:
                self._watcher.cancel()
            self._stop_sessions()
            with suppress(OSError, TimeoutError):
                self._writer.close()
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._writer.wait_closed()

    async def _serve(self) -> None:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            header = await frames.read_header(self._reader)
            if header == frames.SASL_HEADER:
                if not await self._sasl():
                    return
                header = await frames.read_header(self._reader)
            self._writer.write(frames.AMQP_HEADER)
            if header != frames.AMQP_HEADER:
                return  # section 2.2: answer with the version one speaks, then close
            frame = await self._frame()
            if not isinstance(frame.performative, Open):
                raise AmqpError(FRAMING_ERROR, "the first frame is not open")
            self._on_open(frame.performative)
        self._watcher = asyncio.create_task(self._watch())
        while not self._closed:
            self._on_frame(await self._frame())

    async def _frame(self) -> frames.Frame:
        frame = await frames.read_frame(self._reader)
        self._last_received = time.monotonic()
        return frame

    async def _sasl(self) -> bool:
        mechanisms = Array([Symbol(name) for name in (ANONYMOUS, PLAIN, CLAIMS_BASED)])
        offer = SaslMechanisms(sasl_server_mechanisms=mechanisms)
        self._writer.write(frames.SASL_HEADER + frames.pack(offer, 0, kind=frames.SASL_FRAME))
        init = (await self._frame()).performative
        if not isinstance(init, SaslInit):
            raise AmqpError(FRAMING_ERROR, "the first SASL frame is not sasl-init")
        self._all_granted = init.mechanism == PLAIN and self._access.check_plain(init.initial_response)
        accepted = self._all_granted or init.mechanism in (ANONYMOUS, CLAIMS_BASED)
        outcome = SaslOutcome(outcome=SASL_OK if accepted else SASL_AUTH)
        self._writer.write(frames.pack(outcome, 0, kind=frames.SASL_FRAME))
        return accepted

    def _on_open(self, opening: Open) -> None:
        if opening.max_frame_size < MIN_MAX_FRAME_BYTES:
            raise AmqpError(FRAME_SIZE_TOO_SMALL, f"frames must be allowed {MIN_MAX_FRAME_BYTES} bytes")
        if opening.idle_time_out:
            if opening.idle_time_out < SHORTEST_IDLE_MS:
                raise AmqpError(NOT_ALLOWED, f"an idle time-out below {SHORTEST_IDLE_MS} ms is too short")
            self._peer_idle_seconds = opening.idle_time_out / 1000
        self.max_frame_size = min(opening.max_frame_size, frames.MAX_FRAME_BYTES)
        self._opened = True
        self.send(
            Open(
                container_id=CONTAINER,
                max_frame_size=frames.MAX_FRAME_BYTES,
                channel_max=MAX_SESSIONS - 1,
                idle_time_out=int(IDLE_SECONDS * 1000),
            ),
            0,
        )

    def _on_frame(self, frame: frames.Frame) -> None:
        performative = frame.performative
        if performative is None:
            return
        if isinstance(performative, Close):
            self.close()
            return
        if isinstance(performative, Begin):
            if frame.channel in self._sessions or frame.channel >= MAX_SESSIONS:
                raise AmqpError(RESOURCE_LIMIT, "the channel is taken or beyond channel-max")
            self._ended.discard(frame.channel)
            self._sessions[frame.channel] = Session(self, frame.channel, performative)
            return
        session = self._sessions.get(frame.channel)
        if session is None and frame.channel in self._ended:
            return  # azure-eventhub detaches its links after it has ended their session
        if session is None:
            raise AmqpError(FRAMING_ERROR, f"no session on channel {frame.channel}")
        match performative:
            case Attach():
                session.on_attach(performative)
            case Flow():
                session.on_flow(performative)
            case Transfer():
                session.on_transfer(performative, frame.payload)
            case Detach():
                session.on_detach(performative)
            case End():
                del self._sessions[frame.channel]
                self._ended.add(frame.channel)
                session.on_end()
            case Disposition():
                pass  # events are sent settled
            case _:
                raise AmqpError(NOT_ALLOWED, f"{type(performative).__name__.lower()} is out of place")

    def send(self, performative: Composite, channel: int, payload: bytes = b"") -> None:
        if not self._closed:
            self._writer.write(frames.pack(performative, channel, payload))
            self._last_sent = time.monotonic()

    async def drain(self) -> None:
        await self._writer.drain()

    def keep(self, task: asyncio.Task[None]) -> None:
        """A link that fails ends the connection: the client reconnects from its last offset."""
        self._tasks.add(task)
        task.add_done_callback(self._on_link_end)

    def _on_link_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            if not isinstance(error, OSError):
                _log.error("reading the message log failed", error=repr(error))
            self.close(AmqpError("amqp:internal-error", "the message log cannot be read"))

    def may_use(self, address: str) -> bool:
        """Anyone may put a token; all else needs a living grant for the node, or for the hub in case of management."""
        if address == CBS or self._all_granted:
            return True
        node = self.hub_name.lower() if address == MANAGEMENT else "/".join(node_path(address))
        now = time.time()
        return any(expiry > now and (node + "/").startswith(granted + "/") for granted, expiry in self._grants.items())

    def answer(self, address: str, request: Message) -> Message:
        if address != CBS:
            return management.answer(request, self.log, self.hub_name)
        try:
            self._grant(*management.token_of(request))
        except AmqpError as error:
            _log.info("amqp token refused", reason=error.description)
            return management.token_refused(request, error)
        return management.token_accepted(request)

    def _grant(self, token: str, audience: str) -> None:
        node = "/".join(node_path(audience))
        if self.commands is not None and not node:  # azure-iot-hub names the host only
            expiry, node = self.commands.check_token(token), NODE
        else:
            expiry = self._access.check_token(token, audience)
        if node not in self._grants and len(self._grants) >= MAX_GRANTS:
            raise AmqpError(UNAUTHORIZED, f"a connection holds tokens for at most {MAX_GRANTS} nodes")
        self._grants[node] = expiry

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(WATCH_SECONDS, (self._peer_idle_seconds or IDLE_SECONDS) / 4))
            now = time.monotonic()
            if self._peer_idle_seconds and now - self._last_sent > self._peer_idle_seconds / 3:
                self._writer.write(frames.EMPTY_FRAME)
                self._last_sent = now
            if now - self._last_received > IDLE_SECONDS:
                self.close(AmqpError(RESOURCE_LIMIT, "nothing was received for the idle time-out"))
            for session in self._sessions.values():
                session.detach_unauthorized()

    def close(self, error: AmqpError | None = None) -> None:
        """Says close, with the reason if there is one, and ends the stream."""
        if self._closed:
            return
        self._stop_sessions()
        if self._opened:
            reason = Error(condition=error.condition, description=error.description) if error else None
            self.send(Close(error=reason), 0)
        self._closed = True
        self._writer.close()

    def stop(self) -> None:
        """The endpoint goes down; clients reconnect when it is back."""
        self.close(AmqpError(CONNECTION_FORCED, "the endpoint is stopping"))

    def abort(self) -> None:
        """Ends the stream without a word."""
        self._writer.transport.abort()

    def _stop_sessions(self) -> None:
        for session in self._sessions.values():
            session.stop()
        self._sessions.clear()
