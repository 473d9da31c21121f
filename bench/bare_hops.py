"""The hops of a call with nothing in them: aiohttp over mTLS, frames over mTLS, a pipe, wasmtime.

`python -m bench.bare_hops broker|runner|enclave`: three processes as in the product, which only pass the payload on.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import struct
import sys
from urllib.parse import urlsplit

from aiohttp import web

from edgeclave.edge.certificates import CertificateKeeper
from edgeclave.edge.workload import WorkloadClient

BROKER, RUNNER = "bare_broker", "bare_runner"
BROKER_PORT, RUNNER_PORT = 8443, 8444


def frame(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack(">I", await reader.readexactly(4))
    return await reader.readexactly(length)


async def broker() -> None:
    keeper = CertificateKeeper(WorkloadClient.from_environment())
    server_context = await keeper.server_context(BROKER)
    reader, writer = await _through_proxy(await keeper.client_context())
    turn = asyncio.Lock()

    async def call(request: web.Request) -> web.Response:
        body = await request.read()
        async with turn:
            writer.write(frame(body))
            return web.Response(body=await read_frame(reader), content_type="application/json")

    application = web.Application()
    application.router.add_post("/call", call)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, os.environ["EDGECLAVE_LISTEN"], BROKER_PORT, ssl_context=server_context).start()
    await asyncio.Event().wait()


async def runner(wasm: str) -> None:
    keeper = CertificateKeeper(WorkloadClient.from_environment())
    context = await keeper.server_context(RUNNER)
    enclave = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.bare_hops", "enclave", wasm),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert enclave.stdin is not None
    assert enclave.stdout is not None
    to_enclave, from_enclave = enclave.stdin, enclave.stdout

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            to_enclave.write(frame(await read_frame(reader)))
            writer.write(frame(await read_frame(from_enclave)))

    async with await asyncio.start_server(serve, os.environ["EDGECLAVE_LISTEN"], RUNNER_PORT, ssl=context):
        await asyncio.Event().wait()


def enclave(wasm: str) -> None:
    from bench.inside_enclave import bare_echo

    call = bare_echo(wasm)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while header := source.read(4):
        answer = call(source.read(struct.unpack(">I", header)[0]).decode())
        sink.write(frame(answer.encode()))
        sink.flush()


async def _through_proxy(context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    proxy = urlsplit(os.environ["https_proxy"])
    while True:
        try:
            reader, writer = await asyncio.open_connection(proxy.hostname, proxy.port)
            writer.write(f"CONNECT {RUNNER}:{RUNNER_PORT} HTTP/1.1\r\n\r\n".encode())
            if b" 200 " in await reader.readuntil(b"\r\n\r\n"):
                await writer.start_tls(context, server_hostname=RUNNER)
                return reader, writer
        except (OSError, asyncio.IncompleteReadError):
            pass  # it is not up yet
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["broker"]:
            asyncio.run(broker())
        case ["runner", wasm]:
            asyncio.run(runner(wasm))
        case ["enclave", wasm]:
            enclave(wasm)
