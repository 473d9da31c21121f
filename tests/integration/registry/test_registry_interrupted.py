"""A line to docker-registry that breaks in the middle of a transfer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edgeclave.registry import Reference, RegistryAccess, RegistryLimits, pull_package, push_package
from edgeclave.ta.package import encode_package, read_package
from tests.fixtures.docker_registry import DockerRegistry

WASM = b"\0asm" + bytes(range(256)) * 16_000
DATA, DIGEST = encode_package(WASM, b"signature", {"org.opencontainers.image.title": "small"})
ACCESS = RegistryAccess(limits=RegistryLimits(chunk_bytes=2 << 20, first_wait_seconds=0.05))


@dataclass
class Line:
    """A TCP line that is cut after so many bytes, up or down; each entry of `cuts` cuts one connection."""

    to: int
    cuts: list[int] = field(default_factory=list)
    carried: int = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        try:
            yield f"localhost:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
        pumps = [asyncio.ensure_future(self._pump(*ends)) for ends in ((reader, far_writer), (far_reader, writer))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        writer.transport.abort()
        far_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carried = 0
        while data := await reader.read(64 << 10):
            writer.write(data)
            await writer.drain()
            carried += len(data)
            self.carried += len(data)
            if self.cuts and carried > self.cuts[0]:
                await asyncio.sleep(0.05)  # what is under way arrives
                self.cuts.pop(0)
                return


async def test_an_upload_and_a_download_go_on(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path / "registry").running() as registry:
        line = Line(registry.port, cuts=[1_000_000, 3_000_000])
        async with line.running() as host:
            reference = Reference.parse(f"{host}/plant/small:1")
            pushed = await push_package(read_package(DATA), reference, ACCESS)
        assert line.cuts == []

        line = Line(registry.port, cuts=[1_500_000, 1_500_000])
        async with line.running() as host:
            reference = Reference.parse(f"{host}/plant/small@{pushed.reference.digest}")
            assert await pull_package(reference, tmp_path / "small.ta", tmp_path / "partial", ACCESS) == DIGEST
        assert line.cuts == []
        assert line.carried < len(WASM) + 400_000, "what had come was not sent again"
    assert (tmp_path / "small.ta").read_bytes() == DATA
