"""Takes an enclave's log lines into the log of the module, under the slot's name.

Neither the enclave nor the trusted application in it is trusted to keep to a length or a rate.
"""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from edgeclave.enclave.log import BURST_LINES, LINES_PER_SECOND, LogLine

MAX_LINE_BYTES = 32 << 10
MAX_LINES_PER_MESSAGE = 100
_CHUNK_BYTES = 16 << 10
_logger = logging.getLogger("edgeclave.enclave")


async def relay_log(stream: asyncio.StreamReader, slot: str) -> None:
    """Reads lines until the enclave is gone."""
    lines = _Lines(slot)
    while chunk := await stream.read(_CHUNK_BYTES):
        lines.feed(chunk)
    lines.end()


class _Lines:
    def __init__(self, slot: str) -> None:
        self._slot = slot
        self._rest = b""
        self._too_long = False
        self._allowance = 2.0 * BURST_LINES
        self._last = time.monotonic()
        self._left_out = 0

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if not self._too_long:
                self._line(line)
            self._too_long = False
        if len(self._rest) > MAX_LINE_BYTES:
            if not self._too_long:
                self._line(self._rest[:MAX_LINE_BYTES])
            self._rest, self._too_long = b"", True

    def end(self) -> None:
        if self._rest:
            self._line(self._rest)
        if self._left_out:
            self._emit(logging.WARNING, "enclave", f"{self._left_out} log lines of the enclave were left out")

    def _line(self, line: bytes) -> None:
        now = time.monotonic()
        self._allowance = min(2.0 * BURST_LINES, self._allowance + (now - self._last) * 2 * LINES_PER_SECOND)
        self._last = now
        if self._allowance < 1:
            self._left_out += 1
            return
        self._allowance -= 1
        try:
            parsed = msgspec.json.decode(line, type=LogLine)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            parsed = LogLine("enclave", logging.ERROR, line.decode(errors="replace"))
        level = parsed.level if 0 <= parsed.level <= logging.CRITICAL else logging.INFO
        self._emit(level, parsed.source[:32], parsed.message)

    def _emit(self, level: int, source: str, message: str) -> None:
        # A traceback stays readable and nobody can forge an entry of others: each line becomes an entry of its own,
        # and what is not printable is written out.
        for line in message.split("\n")[:MAX_LINES_PER_MESSAGE]:
            printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
            _logger.log(level, "%s", printable, extra={"slot": self._slot, "source": source})
