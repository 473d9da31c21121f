"""How a module runs: logs, signals, metrics and health are the same for all of ours.

A module's `main.py` is

    from edgeclave.edge.service import Service, run

    async def main(service: Service) -> None:
        ...                                   # set up; long work as tasks of its own
        await service.stopping.wait()
        ...                                   # clean up within 5 s

    if __name__ == "__main__":
        run("ta_runner", main)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from edgeclave.edge.health import METRICS_PORT
from edgeclave.edge.logs import configure_logging
from edgeclave.edge.store import listen_address, state_directory
from edgeclave.errors import ConfigurationError, EdgeclaveError

STOP_SECONDS = 4.5
"""From SIGTERM to the end; the process is gone within 5 s whatever hangs."""

HealthCheck = Callable[[], str | None]
"""None when well, else what is wrong, in a few words."""

_log = structlog.get_logger(__name__)


class Service:
    """What `run` gives a module."""

    def __init__(self, name: str, state: Path) -> None:
        self.name = name
        self.state = state
        self.stopping = asyncio.Event()
        self.registry = CollectorRegistry()
        self.checks: dict[str, HealthCheck] = {}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    async def metrics(self, _request: web.Request) -> web.Response:
        """GET /metrics in Prometheus' text form."""
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def health(self, _request: web.Request) -> web.Response:
        """GET /health: 200 when every check is well, else 503; each check by name."""
        problems = {name: check() for name, check in self.checks.items()}
        healthy = not any(problems.values())
        body = {"status": "healthy" if healthy else "unhealthy", "checks": {n: p or "ok" for n, p in problems.items()}}
        return web.json_response(body, status=200 if healthy else 503)


def run(name: str, main: Callable[[Service], Awaitable[None]]) -> None:
    """Runs a module until SIGTERM or SIGINT, or until `main` returns. Exits 0, or 1 with one log line that says why."""
    configure_logging(name)
    code = 1
    try:
        asyncio.run(_serve(name, main))
        code = 0
    except EdgeclaveError as error:
        _log.error("module cannot run", code=error.code, what=error.what, where=error.where, advice=error.advice)
    except Exception:
        _log.exception("module failed")
    sys.stderr.flush()
    # The SDK's worker threads are not daemons and may hang on a dead connection: do not wait for them.
    os._exit(code)


async def _serve(name: str, main: Callable[[Service], Awaitable[None]]) -> None:
    service = Service(name, state_directory())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not the loop's own handler: that one would not run while something blocks the loop.
        signal.signal(number, lambda _number, _frame: _begin_stop(service, loop))
    runner = await _start_metrics(service)
    _log.info("module started", state=str(service.state))
    work = asyncio.ensure_future(main(service))
    stopping = asyncio.ensure_future(service.stopping.wait())
    try:
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            await asyncio.wait({work}, timeout=STOP_SECONDS)
        if not work.done():
            _log.error("module did not stop in time", seconds=STOP_SECONDS)
            return
        work.result()
        _log.info("module stopped")
    finally:
        stopping.cancel()
        work.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await runner.cleanup()


def _begin_stop(service: Service, loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon_threadsafe(service.stopping.set)
    last_resort = threading.Timer(STOP_SECONDS + 0.4, os._exit, args=(1,))
    last_resort.daemon = True
    last_resort.start()


async def _start_metrics(service: Service) -> web.AppRunner:
    application = web.Application()
    application.router.add_get("/metrics", service.metrics)
    application.router.add_get("/health", service.health)
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    address = listen_address()
    try:
        await web.TCPSite(runner, address, METRICS_PORT).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigurationError(
            "port-in-use",
            f"the metrics port cannot be opened: {error.strerror}",
            where=f"{address}:{METRICS_PORT}",
            advice="run one process of this module at a time, or give it another address in EDGECLAVE_LISTEN",
        ) from error
    return runner
