"""Signals to a child of asyncio, without asking how it ended.

`asyncio.subprocess.Process.kill` looks first whether the child has ended, and if it has, takes its exit code from the
one who waits for it: 255 is reported then, whatever happened. A descriptor of the process takes nothing, and never
means another process that got the number meanwhile (pidfd_open(2)).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal


class ProcessSignals:
    """Made as soon as the child is; `close` when it has ended."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        try:
            self._descriptor: int | None = os.pidfd_open(process.pid)
        except ProcessLookupError:  # it was that quick
            self._descriptor = None

    def send(self, number: signal.Signals) -> None:
        """Nothing when it has ended."""
        if self._descriptor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
