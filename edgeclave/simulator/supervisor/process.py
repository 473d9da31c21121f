"""One module as a process: started, watched, restarted with back-off, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from edgeclave.edge.backoff import Backoff
from edgeclave.simulator.log import logger
from edgeclave.simulator.supervisor import launcher
from edgeclave.simulator.supervisor.specification import ModuleSpecification

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1, 60
HEALTHY_AFTER_SECONDS = 60  # running this long resets the back-off
STOP_SECONDS = 10  # edgeAgent's default before it kills
MAX_LOG_BYTES = 16 << 20
LOG_CHECK_SECONDS = 30
_TAIL_BYTES = 4096
_INHERITED = ("PATH", "HOME", "LANG")
_log = logger("supervisor")

NEVER = "0001-01-01T00:00:00Z"  # edgeAgent's word for what has not happened
RuntimeStatus = Literal["unknown", "running", "backoff", "stopped", "failed"]


class ModuleState(msgspec.Struct, rename="camel"):
    """As edgeAgent reports it. Times are ISO 8601, UTC; `NEVER` when it has not happened."""

    runtime_status: RuntimeStatus = "unknown"
    status_description: str = ""
    exit_code: int = 0
    restart_count: int = 0
    last_start_time_utc: str = NEVER
    last_restart_time_utc: str = NEVER
    last_exit_time_utc: str = NEVER


class ModuleProcess:
    """Runs one module until `stop`.

    Args:
        specification: a runnable one.
        environment: of the module, without what is inherited.
        data: its working directory.
        log_file: gets its stdout and stderr.
        changed: called after every change of `state`.
    """

    def __init__(
        self,
        specification: ModuleSpecification,
        environment: Mapping[str, str],
        *,
        data: Path,
        log_file: Path,
        changed: Callable[[], None],
    ) -> None:
        self.specification = specification
        self.state = ModuleState()
        self.log_file = log_file
        self._environment = {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            **specification.environment,
            **environment,
        }
        self._data = data
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._launched = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def launched(self) -> None:
        """Returns once its first process runs, or could not be made."""
        await self._launched.wait()

    def start(self) -> None:
        self._launched.clear()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL to it and what it left behind."""
        process, task = self._process, self._task
        self._task = None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                _log.warning("killed, it did not stop in time", module=self.specification.module_id)
        if process is not None:
            _kill_group(process.pid)
            await process.wait()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._set("stopped", "stopped by the simulator")

    async def _run(self) -> None:
        backoff = Backoff(first_seconds=FIRST_WAIT_SECONDS, longest_seconds=LONGEST_WAIT_SECONDS, jitter=False)
        while True:
            started = time.monotonic()
            code = await self._run_once()
            if self._task is None:  # stop() is under way and says the rest
                return
            reason = f"exited with code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"
            if last := _last_line(self.log_file):
                reason = f"{reason}: {last}"
            self.state.exit_code = code
            if not self._restarts(code):
                self._set("failed" if code else "stopped", reason)
                return
            if time.monotonic() - started > HEALTHY_AFTER_SECONDS:
                backoff.reset()
            wait = backoff.next_seconds()
            self._set("backoff", f"{reason}; starting again in {wait:g} s")
            await asyncio.sleep(wait)
            self.state.restart_count += 1
            self.state.last_restart_time_utc = _now()

    async def _run_once(self) -> int:
        """The exit code; negative for a signal."""
        folder = self.specification.folder
        if folder is None:
            raise ValueError("a module without source cannot be run")
        trim(self.log_file)
        descriptor = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                launcher.__file__,
                str(os.getpid()),
                *_command(self.specification, folder / "main.py"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=self._environment,
                cwd=self._data,
                start_new_session=True,  # Ctrl-C in the terminal is for the simulator, which then stops the modules
            )
        except OSError as error:
            os.write(descriptor, f"cannot be started: {error.strerror}\n".encode())
            return 1
        finally:
            self._launched.set()
            os.close(descriptor)
        self.state.last_start_time_utc = _now()
        self._set("running", "")
        waiting = asyncio.ensure_future(self._process.wait())
        try:
            while not (await asyncio.wait([waiting], timeout=LOG_CHECK_SECONDS))[0]:
                trim(self.log_file)
        finally:
            waiting.cancel()
        code = waiting.result()
        self.state.last_exit_time_utc = _now()
        _kill_group(self._process.pid)
        return code

    def _restarts(self, code: int) -> bool:
        policy = self.specification.restart_policy
        return policy == "always" or (policy in ("on-failure", "on-unhealthy") and code != 0)

    def _set(self, status: RuntimeStatus, description: str) -> None:
        self.state.runtime_status = status
        self.state.status_description = description
        self._changed()


def _command(specification: ModuleSpecification, program: Path) -> list[str]:
    if specification.debug_port is None:
        return [sys.executable, "-u", str(program)]
    listen = ["--listen", f"127.0.0.1:{specification.debug_port}"]
    # Not in children: an enclave has no place for a debugger that listens.
    return [sys.executable, "-u", "-m", "debugpy", *listen, "--configure-subProcess", "False", str(program)]


def trim(log_file: Path) -> None:
    """Keeps a log and its predecessor (`.1`) to a size; the module goes on appending to the same open file."""
    with contextlib.suppress(FileNotFoundError):
        if log_file.stat().st_size > MAX_LOG_BYTES:
            older = log_file.with_name(log_file.name + ".1")
            older.write_bytes(log_file.read_bytes()[-MAX_LOG_BYTES:])
            older.chmod(0o600)
            os.truncate(log_file, 0)


def _last_line(log_file: Path) -> str:
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
