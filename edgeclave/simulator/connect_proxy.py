"""HTTP CONNECT proxy: how unmodified SDKs reach fixed ports and module names on a machine without root or DNS.

    <gateway>:8883 -> the MQTT port        <gateway>:443 -> the HTTPS port; so for the hub and the provisioning service
    <module id>:<port> -> that port of the module's own loopback address
    an address of the simulator's own loopback block -> itself

Everything else is refused; this proxy leads nowhere outside.
"""

from __future__ import annotations

import asyncio
import contextlib

from edgeclave.simulator.identities import Identities
from edgeclave.simulator.log import logger
from edgeclave.simulator.settings import DPS_HOST, Settings

MAX_HEADER_BYTES = 8 * 1024
HEADER_SECONDS = 10
MAX_CONNECTIONS = 500
CHUNK_BYTES = 64 * 1024
_log = logger("proxy")


class _RefusedError(Exception):
    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class ConnectProxy:
    """Forwards byte streams; asyncio's flow control bounds what it holds of each."""

    def __init__(self, identities: Identities, settings: Settings) -> None:
        self._identities = identities
        self._settings = settings
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> None:
        self._server = await asyncio.start_server(self._accept, host, port, limit=MAX_HEADER_BYTES)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def resolve(self, authority: str) -> tuple[str, int] | None:
        """Address and port for what a client asked for, or None when it leads nowhere."""
        host, _, port_text = authority.rpartition(":")
        host = host.lower()  # clients lower the case of host names
        if not port_text.isdecimal() or not 0 < int(port_text) < 65536:
            return None
        port = int(port_text)
        settings = self._settings
        if host.startswith(f"{settings.block}."):  # clients send everything to a proxy, their own neighbours included
            return host, port
        if host in (settings.gateway.lower(), settings.hub_host, DPS_HOST):
            known = {8883: settings.ports.mqtt, 443: settings.ports.https}
            return (settings.address, known[port]) if port in known else None
        for identity in self._identities.modules(settings.device_id):
            if identity.address and identity.name.module_id.lower() == host:
                return identity.address, port
        return None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _join(reader, writer, *await self._connect(reader, writer))
        except _RefusedError as refused:
            with contextlib.suppress(OSError):
                await _refuse(writer, refused)
        except (OSError, asyncio.IncompleteReadError):
            pass  # a side went away; the other is closed below
        finally:
            if not writer.is_closing():
                writer.transport.abort()

    async def _connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(HEADER_SECONDS):
                header = await reader.readuntil(b"\r\n\r\n")
        except (TimeoutError, asyncio.LimitOverrunError) as error:
            raise _RefusedError("400 Bad Request", f"no CONNECT within {HEADER_SECONDS} s and its limit") from error
        words = header.split(b"\r\n", 1)[0].decode("ascii", "replace").split(" ")
        if len(words) != 3 or words[0] != "CONNECT" or not words[2].startswith("HTTP/1."):
            raise _RefusedError("405 Method Not Allowed", "this proxy knows CONNECT only")
        address = self.resolve(words[1])
        if address is None:
            _log.warning("refused", target=words[1][:256])
            raise _RefusedError(
                "403 Forbidden", f"{words[1][:256]} is neither the gateway nor a module of this simulator"
            )
        try:
            target = await asyncio.open_connection(*address, limit=CHUNK_BYTES)
        except OSError as error:
            raise _RefusedError("502 Bad Gateway", f"nothing listens at {words[1][:256]} yet") from error
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return target


async def _refuse(writer: asyncio.StreamWriter, refused: _RefusedError) -> None:
    body = f"{refused.why}\n".encode()
    head = f"HTTP/1.1 {refused.status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
    await writer.drain()
    writer.close()


async def _join(
    near_reader: asyncio.StreamReader,
    near_writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    """Copies both ways until one side ends; then both are closed."""
    ways = [
        asyncio.create_task(_copy(near_reader, far_writer)),
        asyncio.create_task(_copy(far_reader, near_writer)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for writer in (near_writer, far_writer):
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.drain()
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        near_writer.close()
        far_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
