"""MQTT over WebSocket (OASIS MQTT 3.1.1, section 6): the same connection, its bytes in binary frames."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from edgeclave.simulator.mqtt.codec import MAX_PACKET_BYTES
from edgeclave.simulator.mqtt.connection import Connection
from edgeclave.simulator.mqtt.server import MqttServer

PATH = "/$iothub/websocket"
SUBPROTOCOL = "mqtt"
HIGH_WATER_BYTES = 64 * 1024  # unsent beyond this, the client is not read from, as asyncio does for a plain connection


async def serve(request: web.Request, server: MqttServer) -> web.WebSocketResponse:
    """One client from its handshake to its end."""
    socket = web.WebSocketResponse(
        protocols=(SUBPROTOCOL,), max_msg_size=MAX_PACKET_BYTES, compress=False, autoclose=True
    )
    await socket.prepare(request)
    connection = Connection(server)
    transport = _WebSocketTransport(socket, connection, request.get_extra_info("ssl_object"))
    sending = asyncio.create_task(transport.send_for_ever())
    connection.connection_made(transport)
    try:
        async for message in socket:
            if transport.is_closing():
                break
            if message.type is not WSMsgType.BINARY:
                await socket.close(code=WSCloseCode.UNSUPPORTED_DATA)
                break
            connection.data_received(message.data)
            await transport.readable()
    finally:
        transport.abort()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        connection.connection_lost(None)
    return socket


class _WebSocketTransport(asyncio.Transport):
    """What `Connection` needs of a transport."""

    def __init__(self, socket: web.WebSocketResponse, connection: Connection, tls: object) -> None:
        super().__init__({"ssl_object": tls})
        self._socket = socket
        self._connection = connection
        self._unsent = bytearray()
        self._wake = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._closing = False
        self._writing_paused = False

    async def send_for_ever(self) -> None:
        """Sends what is written until the transport is closed; then closes the WebSocket."""
        with contextlib.suppress(ConnectionError):
            while True:
                await self._wake.wait()
                self._wake.clear()
                data, self._unsent = bytes(self._unsent), bytearray()
                if data:
                    await self._socket.send_bytes(data)
                if self._closing and not self._unsent:
                    break
                if self._writing_paused and len(self._unsent) < HIGH_WATER_BYTES:
                    self._writing_paused = False
                    self._connection.resume_writing()
        await self._socket.close()

    async def readable(self) -> None:
        await self._may_read.wait()

    def write(self, data: Any) -> None:
        if self._closing:
            return
        self._unsent += data
        self._wake.set()
        if len(self._unsent) > HIGH_WATER_BYTES and not self._writing_paused:
            self._writing_paused = True
            self._connection.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def pause_reading(self) -> None:
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """After what was written is sent."""
        self._closing = True
        self._may_read.set()
        self._wake.set()

    def abort(self) -> None:
        self._unsent.clear()
        self.close()
