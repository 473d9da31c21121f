"""A session: its windows and its links (part 2, sections 2.5 and 2.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from edgeclave.simulator.amqp.access import node_path
from edgeclave.simulator.amqp.commands import MAX_MESSAGE_BYTES, NODE, CommandNode
from edgeclave.simulator.amqp.links import (
    MAX_REQUEST_BYTES,
    REQUEST_CREDIT,
    CommandLink,
    EventLink,
    ReplyLink,
    RequestLink,
    SendingLink,
)
from edgeclave.simulator.amqp.log import MessageLog
from edgeclave.simulator.amqp.message import Message
from edgeclave.simulator.amqp.performatives import (
    RECEIVER,
    SENDER,
    SETTLED_BY_SENDER,
    Accepted,
    Attach,
    Begin,
    Composite,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Rejected,
    Source,
    Target,
    Transfer,
)
from edgeclave.simulator.amqp.receivers import Reader, Receivers, epoch_of
from edgeclave.simulator.amqp.selector import resolve, start_of
from edgeclave.simulator.amqp.types import (
    HANDLE_IN_USE,
    NOT_FOUND,
    RESOURCE_LIMIT,
    UNATTACHED_HANDLE,
    UNAUTHORIZED,
    AmqpError,
)

_log = structlog.get_logger("edgeclave.simulator.amqp")

CBS, MANAGEMENT = "$cbs", "$management"
MAX_LINKS = 256  # per session
MAX_ADDRESS_CHARACTERS = 512
INCOMING_WINDOW = 2048  # transfers
OUTGOING_WINDOW = 65_536
_TAGS = 1 << 16  # events are sent settled, so tags need not stay unique for long
_TRANSFER_OVERHEAD = 128  # bytes of frame header and transfer performative, rounded up
_SERIAL = 1 << 32


class Owner(Protocol):
    """What a session needs of its connection."""

    log: MessageLog
    hub_name: str
    max_frame_size: int
    commands: CommandNode | None
    receivers: Receivers

    def send(self, performative: Composite, channel: int, payload: bytes = b"") -> None: ...

    async def drain(self) -> None: ...

    def may_use(self, address: str) -> bool: ...

    def answer(self, address: str, request: Message) -> Message: ...

    def keep(self, task: asyncio.Task[None]) -> None: ...


class Session:
    """Serves one remotely begun session on the channel the client chose."""

    def __init__(self, owner: Owner, channel: int, begin: Begin) -> None:
        self._owner = owner
        self._channel = channel
        self._links: dict[int, RequestLink | SendingLink] = {}
        self._addresses: dict[int, str] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._readers: dict[int, Reader] = {}
        self._next_outgoing = 0
        self._next_incoming = begin.next_outgoing_id
        self._remote_window = begin.incoming_window
        self._window_open = asyncio.Event()
        self._window_open.set()
        owner.send(
            Begin(
                remote_channel=channel,
                next_outgoing_id=0,
                incoming_window=INCOMING_WINDOW,
                outgoing_window=OUTGOING_WINDOW,
                handle_max=MAX_LINKS - 1,
            ),
            channel,
        )

    def on_attach(self, attach: Attach) -> None:
        """A link that cannot be is answered with an attach without terminus and a closing detach with the reason."""
        if attach.handle in self._links:
            raise AmqpError(HANDLE_IN_USE, f"handle {attach.handle} is attached already")
        if attach.handle >= MAX_LINKS:
            raise AmqpError(RESOURCE_LIMIT, f"a session has at most {MAX_LINKS} links")
        try:
            start = self._serve(attach)
        except AmqpError as error:
            _log.info("amqp link refused", condition=error.condition, reason=error.description)
            self._reply_attach(attach, refused=True)
            self._owner.send(_detach(attach.handle, error), self._channel)
            return
        self._reply_attach(attach, refused=False)
        start()

    def _serve(self, attach: Attach) -> Callable[[], None]:
        terminus = attach.source if attach.role == RECEIVER else attach.target
        address = terminus.address if terminus else None
        if not address or len(address) > MAX_ADDRESS_CHARACTERS:
            raise AmqpError(NOT_FOUND, "a link needs the address of a node")
        if not self._owner.may_use(address):
            raise AmqpError(UNAUTHORIZED, "no valid token covers this node")
        handle = attach.handle
        if address in (CBS, MANAGEMENT):
            self._addresses[handle] = address
            if attach.role == SENDER:
                self._links[handle] = RequestLink(address, lambda request: self._on_request(address, request))
                return lambda: self.send_flow(handle, delivery_count=0, link_credit=REQUEST_CREDIT)
            self._links[handle] = ReplyLink(address, handle, self)
            return lambda: None
        if attach.role == SENDER and self._owner.commands is not None and "/".join(node_path(address)) == NODE:
            self._addresses[handle] = address
            self._links[handle] = CommandLink(self._on_command, MAX_MESSAGE_BYTES)
            return lambda: self.send_flow(handle, delivery_count=0, link_credit=REQUEST_CREDIT)
        if attach.role == SENDER or attach.source is None:
            raise AmqpError(NOT_FOUND, "events are only read here; devices send through the hub")
        partition = self._partition(address)
        epoch = epoch_of(attach.properties)
        node = "/".join(node_path(address))
        self._owner.receivers.check(node, epoch)
        after = resolve(self._owner.log, partition, start_of(attach.source.filter))
        link = EventLink(self._owner.log, partition, after, handle, self)
        self._links[handle], self._addresses[handle] = link, address
        reader = Reader(node, epoch, lambda error: self._end(handle, error))
        return lambda: self._start(handle, link, reader)

    def _start(self, handle: int, link: EventLink, reader: Reader) -> None:
        self._owner.receivers.enter(reader)
        self._readers[handle] = reader
        task = asyncio.create_task(link.run())
        self._tasks[handle] = task
        self._owner.keep(task)

    def _partition(self, address: str) -> str:
        match node_path(address):
            case [hub, "consumergroups", _, "partitions", partition] if hub == self._owner.hub_name.lower():
                if partition in self._owner.log.partitions:
                    return partition
                raise AmqpError(NOT_FOUND, "there is no such partition")
        raise AmqpError(NOT_FOUND, "there is no such node")

    def _reply_attach(self, attach: Attach, *, refused: bool) -> None:
        sends = attach.role == RECEIVER
        source, target = attach.source or Source(), attach.target or Target()
        link = self._links.get(attach.handle)
        self._owner.send(
            Attach(
                name=attach.name,
                handle=attach.handle,
                role=not attach.role,
                snd_settle_mode=SETTLED_BY_SENDER if sends else attach.snd_settle_mode,
                source=None if refused and sends else Source(address=source.address),
                target=None if refused and not sends else Target(address=target.address),
                initial_delivery_count=0 if sends else None,
                max_message_size=link.limit_bytes if isinstance(link, RequestLink) else MAX_REQUEST_BYTES,
            ),
            self._channel,
        )

    def on_flow(self, flow: Flow) -> None:
        consumed = flow.next_incoming_id or 0
        window = (consumed + flow.incoming_window - self._next_outgoing) % _SERIAL
        self._remote_window = window if window < _SERIAL // 2 else 0
        if self._remote_window:
            self._window_open.set()
        if flow.handle is not None:
            link = self._links.get(flow.handle)
            if isinstance(link, SendingLink):
                link.on_flow(flow)
        if flow.echo:
            self._owner.send(self._flow(), self._channel)

    def on_transfer(self, transfer: Transfer, payload: bytes) -> None:
        link = self._links.get(transfer.handle)
        if not isinstance(link, RequestLink):
            raise AmqpError(UNATTACHED_HANDLE, f"no link takes transfers on handle {transfer.handle}")
        self._next_incoming = (self._next_incoming + 1) % _SERIAL
        if not link.on_transfer(transfer, payload):
            return
        if isinstance(link, CommandLink):
            pass  # settled when it is on disk
        elif not transfer.settled and transfer.delivery_id is not None:
            done = Disposition(role=RECEIVER, first=transfer.delivery_id, settled=True, state=Accepted())
            self._owner.send(done, self._channel)
        self.send_flow(transfer.handle, delivery_count=link.received, link_credit=REQUEST_CREDIT)

    def _on_command(self, message: Message, delivery: int | None) -> None:
        def settled(error: AmqpError | None) -> None:
            if delivery is None:
                return
            reason = Error(condition=error.condition, description=error.description) if error else None
            state = Rejected(error=reason) if reason else Accepted()
            self._owner.send(Disposition(role=RECEIVER, first=delivery, settled=True, state=state), self._channel)

        if self._owner.commands is not None:
            self._owner.commands.accept(message, settled)

    def _on_request(self, address: str, request: Message) -> None:
        answer = self._owner.answer(address, request)
        for link in self._links.values():
            if isinstance(link, ReplyLink) and link.address == address:
                link.send(answer)
                return

    def on_detach(self, detach: Detach) -> None:
        if self._remove(detach.handle):
            self._owner.send(Detach(handle=detach.handle, closed=detach.closed), self._channel)

    def on_end(self) -> None:
        self.stop()
        self._owner.send(End(), self._channel)

    def detach_unauthorized(self) -> None:
        """Ends the links whose token has expired."""
        for handle, address in list(self._addresses.items()):
            if not self._owner.may_use(address):
                self._end(handle, AmqpError(UNAUTHORIZED, "the token has expired"))

    def _end(self, handle: int, error: AmqpError) -> None:
        self._remove(handle)
        self._owner.send(_detach(handle, error), self._channel)

    def stop(self) -> None:
        for handle in list(self._links):
            self._remove(handle)

    def _remove(self, handle: int) -> bool:
        task = self._tasks.pop(handle, None)
        if task:
            task.cancel()
        if reader := self._readers.pop(handle, None):
            self._owner.receivers.leave(reader)
        self._addresses.pop(handle, None)
        return self._links.pop(handle, None) is not None

    async def writable(self) -> None:
        await self._window_open.wait()
        await self._owner.drain()

    def transmit(self, handle: int, message: bytes) -> None:
        """One settled delivery, in as many transfers as the client's frame size asks for."""
        room = self._owner.max_frame_size - _TRANSFER_OVERHEAD
        delivery = self._next_outgoing
        for start in range(0, len(message), room):
            transfer = Transfer(
                handle=handle,
                delivery_id=delivery,
                delivery_tag=(delivery % _TAGS).to_bytes(2, "big"),
                message_format=0,
                settled=True,
                more=start + room < len(message),
            )
            self._owner.send(transfer, self._channel, message[start : start + room])
            self._next_outgoing = (self._next_outgoing + 1) % _SERIAL
            self._remote_window -= 1
        if self._remote_window <= 0:
            self._window_open.clear()

    def send_flow(self, handle: int, *, delivery_count: int, link_credit: int) -> None:
        self._owner.send(self._flow(handle, delivery_count, link_credit), self._channel)

    def _flow(self, handle: int | None = None, delivery_count: int | None = None, credit: int | None = None) -> Flow:
        return Flow(
            next_incoming_id=self._next_incoming,
            incoming_window=INCOMING_WINDOW,
            next_outgoing_id=self._next_outgoing,
            outgoing_window=OUTGOING_WINDOW,
            handle=handle,
            delivery_count=delivery_count,
            link_credit=credit,
        )


def _detach(handle: int, error: AmqpError) -> Detach:
    return Detach(handle=handle, closed=True, error=Error(condition=error.condition, description=error.description))
