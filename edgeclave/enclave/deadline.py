"""Deadlines: a second thread ends a call that takes too long by advancing wasmtime's epoch.

A signal would never do: while the trusted application runs, the main thread is in native code. The thread sleeps unless
calls come, and looks at the clock every 20 ms while they do, so a busy instance pays no wake-up per call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_TICK_SECONDS = 0.02
_IDLE_AFTER_SECONDS = 1.0


class DeadlineTicker:
    """Calls `interrupt` once for each armed deadline that passes. None: there are no deadlines, as under a debugger."""

    def __init__(self, interrupt: Callable[[], None] | None) -> None:
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._due: float | None = None
        self._expired = False
        self._thread = threading.Thread(target=self._run, name="deadline", daemon=True)

    def start(self) -> None:
        if self._interrupt is not None:
            self._thread.start()

    def arm(self, seconds: float) -> None:
        if self._interrupt is None:
            return
        with self._lock:
            self._expired = False
            self._due = time.monotonic() + seconds
        if not self._wake.is_set():
            self._wake.set()

    def disarm(self) -> bool:
        """Returns whether the deadline had passed. After this, `interrupt` is not called any more."""
        with self._lock:
            self._due = None
            return self._expired

    def _run(self) -> None:
        idle_since = time.monotonic()
        while True:
            with self._lock:
                now = time.monotonic()
                if self._due is not None:
                    idle_since = now
                    if now >= self._due:
                        self._due = None
                        self._expired = True
                        assert self._interrupt is not None
                        self._interrupt()
                elif now - idle_since > _IDLE_AFTER_SECONDS:
                    self._wake.clear()
                wait = _TICK_SECONDS if self._due is None else min(_TICK_SECONDS, self._due - now)
            if self._wake.wait():
                time.sleep(max(wait, 0.0))
