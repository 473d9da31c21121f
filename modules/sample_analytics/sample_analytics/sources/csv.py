"""A recorded series: a file of `timestamp,value` lines, replayed at a chosen speed.

The order is the file's: clocks step back, and every reading counts. A first line with a word for its value is a
header. Lines that cannot be read are reported with their number and counted, never silently dropped.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import math
import re
from pathlib import Path
from typing import BinaryIO

import msgspec

from edgeclave.errors import ConfigurationError
from sample_analytics.sources import MAX_MAGNITUDE, MAX_TIME_CHARACTERS, Chunk, Reading, happens

MAX_LINE_BYTES = 4096
MAX_BROKEN_IN_CHUNK = 1000
_BOM = b"\xef\xbb\xbf"
_HEADER = re.compile(r"(?!(?:nan|inf|infinity|null|none)\Z)[^\W\d][^,]*\Z", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)


class _Cursor(msgspec.Struct, frozen=True):
    """Where the next line starts, and its number."""

    offset: int = 0
    line: int = 1


class CsvSource:
    """One file. A file with other content is another series, and starts from its beginning."""

    live = False

    def __init__(self, path: str, speed: float) -> None:
        self._path = Path(path)
        self._speed = speed
        self._file: BinaryIO | None = None
        self._digest = ""
        self._due = 0.0

    @property
    def key(self) -> str:
        return f"csv:{self._path}:{self._digest}"

    @property
    def series(self) -> str:
        name = "".join(letter for letter in self._path.stem if letter.isprintable())
        return f"csv/{name[:64]}/{self._digest[:8]}"

    async def open(self) -> None:
        """Raises ConfigurationError `csv-unreadable`."""
        try:
            self._file = await asyncio.to_thread(self._open)
        except OSError as error:
            raise ConfigurationError(
                "csv-unreadable",
                f"the file cannot be read: {error.strerror}",
                where=str(self._path),
                advice="put it where the module can read it; it is tried again",
            ) from error

    async def read(self, cursor: str, most: int, seconds: float, enough: asyncio.Event) -> Chunk:
        """As Source.read."""
        loop = asyncio.get_running_loop()
        at = msgspec.json.decode(cursor, type=_Cursor) if cursor else _Cursor()
        readings: list[Reading] = []
        broken: list[str] = []
        end = math.inf
        while len(readings) < most and len(broken) < MAX_BROKEN_IN_CHUNK and not enough.is_set():
            if self._speed:
                if min(self._due, end) > loop.time() and await happens(enough, min(self._due, end) - loop.time()):
                    break
                if loop.time() >= end:
                    break
            found, at, ended = self._next(at, broken)
            if found is not None:
                if not readings:
                    end = loop.time() + seconds
                readings.append(found)
                self._pace(loop.time())
            if ended:
                return Chunk(readings, _encode(at), True, broken)
        return Chunk(readings, _encode(at), False, broken)

    async def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _pace(self, now: float) -> None:
        if self._speed:
            # Behind schedule it does not race to catch up by more than a second.
            self._due = max(self._due, now - 1) + 1 / self._speed

    def _open(self) -> BinaryIO:
        if not self._path.is_file():
            # A pipe or a device would be read for ever.
            raise FileNotFoundError(0, "there is no such regular file")
        file = self._path.open("rb")
        try:
            self._digest = hashlib.file_digest(file, "sha256").hexdigest()
        except BaseException:
            file.close()
            raise
        return file

    def _next(self, at: _Cursor, broken: list[str]) -> tuple[Reading | None, _Cursor, bool]:
        """The reading of the line at `at` if it has one, the next cursor, whether the file ends there."""
        assert self._file is not None, "open the source first"
        self._file.seek(at.offset)
        line = self._file.readline(MAX_LINE_BYTES + 1)
        if not line:
            return None, at, True
        following = _Cursor(at.offset + len(line), at.line + 1)
        if len(line) > MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = self._file.readline(MAX_LINE_BYTES)
            following = _Cursor(self._file.tell(), at.line + 1)
            broken.append(f"line {at.line}: it is longer than {MAX_LINE_BYTES} bytes")
            return None, following, False
        try:
            return parse_line(line, header_allowed=at.line == 1), following, False
        except ValueError as error:
            broken.append(f"line {at.line}: {error}")
            return None, following, False


def parse_line(line: bytes, *, header_allowed: bool = False) -> Reading | None:
    """Time and value of one line; None when it is empty or the header.

    >>> parse_line(b"2013-12-02 21:15:00,73.96\\n")
    ('2013-12-02 21:15:00', 73.96)

    Raises:
        ValueError: what is wrong with it.
    """
    try:
        text = line.removeprefix(_BOM).decode().strip()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    if not text:
        return None
    try:
        fields = [field.strip() for field in next(csv.reader([text], strict=True))]
    except csv.Error as error:
        raise ValueError(f"it is not CSV: {error}") from None
    if len(fields) != 2:
        raise ValueError(f"it has {len(fields)} fields instead of timestamp,value")
    time, number = fields
    if not _NUMBER.match(number):
        if header_allowed and _HEADER.match(number):
            return None
        raise ValueError("its value is not a finite number")
    value = float(number)
    if abs(value) > MAX_MAGNITUDE:
        raise ValueError(f"its value is beyond {MAX_MAGNITUDE:g}")
    if not 0 < len(time) <= MAX_TIME_CHARACTERS or not time.isprintable():
        raise ValueError(f"its timestamp does not have 1 to {MAX_TIME_CHARACTERS} printable characters")
    return time, value


def _encode(cursor: _Cursor) -> str:
    return msgspec.json.encode(cursor).decode()
