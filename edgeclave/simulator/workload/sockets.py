"""One unix socket per module, in a short folder of this user only: a socket's path has at most 107 bytes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import stat
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web

from edgeclave.errors import ConfigurationError
from edgeclave.simulator.identities import HubIdentity, IdentityName
from edgeclave.simulator.log import http_logger
from edgeclave.simulator.workload.api import WorkloadApi

MAX_SOCKET_PATH_BYTES = 107
MAX_NAME_CHARACTERS = 48
BACKLOG = 64
SHUTDOWN_SECONDS = 1


def runtime_folder(state: Path) -> Path:
    """The same folder for the same state directory at every start: `$XDG_RUNTIME_DIR` or /tmp, and a short hash."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    parent = Path(base) if base and Path(base).is_dir() and os.access(base, os.W_OK) else Path(tempfile.gettempdir())
    digest = hashlib.sha256(f"{os.getuid()}|{state.resolve()}".encode()).hexdigest()[:12]
    return parent / f"edgeclave-{digest}"


def socket_path(state: Path, module_id: str) -> Path:
    """Where the workload socket of a module is, whether the simulator runs or not.

    Raises:
        ConfigurationError: `socket-path-too-long`.
    """
    plain = len(module_id) <= MAX_NAME_CHARACTERS and "/" not in module_id
    name = module_id if plain else hashlib.sha256(module_id.encode()).hexdigest()[:16]
    path = runtime_folder(state) / f"{name}.sock"
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise ConfigurationError(
            "socket-path-too-long",
            f"a unix socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes",
            where=str(path),
            advice="set TMPDIR or XDG_RUNTIME_DIR to a short path",
        )
    return path


class WorkloadSockets:
    """Opens a socket for every module identity and closes it with the identity."""

    def __init__(self, api: WorkloadApi, state: Path) -> None:
        self._api = api
        self._state = state
        self._runners: dict[IdentityName, web.AppRunner] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, identity: HubIdentity) -> None:
        """Callers can connect when this returns; they are served as soon as the loop turns."""
        if not identity.address or identity.name in self._runners:  # only modules that run have an address
            return
        path = socket_path(self._state, identity.name.module_id)
        make_private(path.parent)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(mask)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        application = self._api.application(identity.name, os.getuid())
        runner = web.AppRunner(application, access_log=None, logger=http_logger(), shutdown_timeout=SHUTDOWN_SECONDS)
        self._runners[identity.name] = runner
        self._run(self._serve(runner, listener))

    def close(self, identity: HubIdentity) -> None:
        runner = self._runners.pop(identity.name, None)
        if runner is not None:
            socket_path(self._state, identity.name.module_id).unlink(missing_ok=True)
            self._run(runner.cleanup())

    async def stop(self) -> None:
        """Closes all and removes the folder."""
        for name, runner in list(self._runners.items()):
            await runner.cleanup()
            socket_path(self._state, name.module_id).unlink(missing_ok=True)
        self._runners.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        folder = runtime_folder(self._state)
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()

    async def _serve(self, runner: web.AppRunner, listener: socket.socket) -> None:
        await runner.setup()
        await web.SockSite(runner, listener).start()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def make_private(folder: Path) -> None:
    """Makes the folder, mode 0700; someone else's folder of that name is refused, not used."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigurationError(
            "runtime-folder-unsafe",
            "the folder for workload sockets is not this user's own, private one",
            where=str(folder),
            advice="remove it, or set XDG_RUNTIME_DIR to a folder of your own",
        )
