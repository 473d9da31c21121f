"""Log lines of the enclave: one JSON object a line on standard error, where the host reads them.

What the trusted application logs is not trusted either: a line has a length limit, and so many lines a second.
"""

from __future__ import annotations

import os
import sys
import time

import msgspec

MAX_MESSAGE_CHARACTERS = 4096
LINES_PER_SECOND = 50
BURST_LINES = 200
_ENCLAVE_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class LogLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`source` is `enclave` or `trusted-application`; `level` as in Python's logging (10 debug ... 40 error)."""

    source: str
    level: int
    message: str


def enclave_log(level: str, message: str) -> None:
    _write(LogLine("enclave", _ENCLAVE_LEVELS[level], message[:MAX_MESSAGE_CHARACTERS]))


class TrustedApplicationLog:
    """Passes on what the trusted application logs, up to the rate; says once how much was left out."""

    def __init__(self) -> None:
        self._allowance = float(BURST_LINES)
        self._last = time.monotonic()
        self._left_out = 0

    def write(self, level: int, message: str) -> None:
        now = time.monotonic()
        self._allowance = min(BURST_LINES, self._allowance + (now - self._last) * LINES_PER_SECOND)
        self._last = now
        if self._allowance < 1:
            self._left_out += 1
            return
        self._allowance -= 1
        if self._left_out:
            enclave_log("warning", f"{self._left_out} log lines of the trusted application were left out")
            self._left_out = 0
        _write(LogLine("trusted-application", level, message[:MAX_MESSAGE_CHARACTERS]))


def _write(line: LogLine) -> None:
    # One write a line, so that lines of several writers are not mixed. A host that stopped reading stops the enclave.
    os.write(sys.stderr.fileno(), msgspec.json.encode(line) + b"\n")
