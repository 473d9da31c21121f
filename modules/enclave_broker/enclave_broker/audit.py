"""The audit log: what was decided, written before it is done, in a form where a missing or changed line shows.

- One JSON object a line, appended. `previous` is the SHA-256 of the line before, without its newline; sequence numbers
  have no holes. The first line ever has 64 zeros.
- A line is handed to the operating system before the request goes on: it survives the end of the process. A power cut
  may cost the last lines; a torn one is removed at the next start, and a line says so.
- At `max_file_bytes` the file is set aside as `audit-<first sequence>.jsonl`; the chain goes on in the next one. The
  oldest file is deleted beyond `max_files`.
- Whoever may write the folder can rewrite the whole chain. So the module reports the last line's number and digest in
  its twin: history before that cannot change unnoticed.
- Payloads never come here: names, identities and decisions only.
"""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgeclave.errors import EdgeclaveError

CURRENT = "audit.jsonl"
GENESIS = "0" * 64
MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_FILES = 16
MAX_LINE_BYTES = 16 * 1024

Event = Literal["decision", "refused", "policy", "started", "recovered"]


class AuditLine(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", forbid_unknown_fields=True):
    """One line. `outcome` is allow or deny for a decision, a reason code for what was refused before one."""

    sequence: int
    time: str
    previous: str
    event: str
    identity: str | None = None
    operation: str | None = None
    resource: str | None = None
    call_id: str | None = None
    outcome: str | None = None
    statement: str | None = None
    count: int = 1
    detail: str | None = None


class AuditError(EdgeclaveError):
    """The log cannot be written, or is not what was written."""


@dataclass(frozen=True)
class AuditSummary:
    """What `verify` found: a whole chain from `first` to `last`; `torn_bytes` follow the last line if any."""

    first: int
    last: int
    digest: str
    files: int
    torn_bytes: int


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AuditLine)


class AuditLog:
    """The log in one folder. Written by one process, on one thread.

    Raises:
        AuditError: audit-unavailable.
    """

    def __init__(self, folder: Path, *, max_file_bytes: int = MAX_FILE_BYTES, max_files: int = MAX_FILES) -> None:
        self._folder = folder
        self._max_file_bytes = max_file_bytes
        self._max_files = max_files
        self.sequence = 0
        """Number of the last line."""
        self.digest = GENESIS
        """SHA-256 of the last line, hexadecimal."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            recovered = self._recover()
            self._open()
        except OSError as error:
            raise _unavailable(folder, error) from error
        if recovered:
            self.record("recovered", detail=recovered)

    def record(self, event: Event, **members: Any) -> None:
        """Append one line; members as AuditLine. It is in the operating system's hands when this returns.

        Raises:
            AuditError: audit-unavailable; nothing was appended, so the caller must not go on.
        """
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = _encoder.encode(AuditLine(self.sequence + 1, time, self.digest, event, **members))
        try:
            if self._size + len(line) >= self._max_file_bytes and self._size:
                self._rotate()
            self._append(line + b"\n")
        except OSError as error:
            raise _unavailable(self._folder, error) from error
        self.sequence += 1
        self.digest = hashlib.sha256(line).hexdigest()

    def close(self) -> None:
        """Put the log on the disk and close it."""
        os.fsync(self._descriptor)
        os.close(self._descriptor)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._folder / CURRENT, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size
        if self._size == 0:
            self._first = self.sequence + 1

    def _append(self, line: bytes) -> None:
        written = os.write(self._descriptor, line)
        if written != len(line):  # the disk is full: take the torn line back, so that the next one stands alone
            os.ftruncate(self._descriptor, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written

    def _rotate(self) -> None:
        os.fsync(self._descriptor)
        (self._folder / CURRENT).rename(self._folder / f"audit-{self._first:012d}.jsonl")
        full = self._descriptor
        self._open()
        os.close(full)
        for oldest in _rotated(self._folder)[: -(self._max_files - 1)]:
            oldest.unlink()

    def _recover(self) -> str | None:
        """Find the end of the chain; returns what had to be done for that, None when nothing."""
        current = self._folder / CURRENT
        said = None
        if current.exists() and (torn := _torn_bytes(current)):
            os.truncate(current, current.stat().st_size - torn)
            said = f"{torn} bytes of a torn last line were removed"
        if current.exists() and current.stat().st_size:
            try:
                self._first = _read_line(_first_line(current), current, 1).sequence
                self._take(_last_line(current), current)
            except AuditError as error:
                aside = f"damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.jsonl"
                current.rename(self._folder / aside)
                said = f"{CURRENT} was damaged and set aside as {aside}: {error.what}"
            else:
                return said
        if rotated := _rotated(self._folder):
            self._take(_last_line(rotated[-1]), rotated[-1])
        return said

    def _take(self, line: bytes, path: Path) -> None:
        self.sequence = _read_line(line, path, 0).sequence
        self.digest = hashlib.sha256(line).hexdigest()


def verify(folder: Path) -> AuditSummary:
    """Check every line of every file that is left, in order.

    Raises:
        AuditError: audit-empty, audit-malformed (no line of this log), audit-broken (a line was changed, removed or
            added); `where` names file and line.
    """
    files = [*_rotated(folder), folder / CURRENT]
    first = last = 0
    digest = GENESIS
    torn = 0
    for path in files:
        data = path.read_bytes() if path.exists() else b""
        *lines, rest = data.split(b"\n")
        torn = len(rest)
        if torn and path.name != CURRENT:
            raise AuditError("audit-malformed", "a file that was set aside ends in a torn line", where=str(path))
        for number, line in enumerate(lines, start=1):
            entry = _read_line(line, path, number)
            if last == 0:
                first, expected = entry.sequence, entry.sequence
                digest = GENESIS if first == 1 else entry.previous
            else:
                expected = last + 1
            if (entry.sequence, entry.previous) != (expected, digest):
                raise AuditError(
                    "audit-broken",
                    "this line does not follow the one before: a line was changed, removed or added",
                    where=f"{path}:{number}",
                    advice="compare with the last number and digest in the module's reported properties",
                )
            last, digest = entry.sequence, hashlib.sha256(line).hexdigest()
    if last == 0:
        raise AuditError("audit-empty", "there is no audit log", where=str(folder))
    return AuditSummary(first, last, digest, sum(path.exists() for path in files), torn)


def _rotated(folder: Path) -> list[Path]:
    return sorted(folder.glob("audit-*.jsonl"))


def _read_line(line: bytes, path: Path, number: int) -> AuditLine:
    try:
        if len(line) <= MAX_LINE_BYTES:
            return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    place = f"{path}:{number}" if number else str(path)
    raise AuditError("audit-malformed", "this is no line of an audit log", where=place)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2 * MAX_LINE_BYTES))
        return file.read()


def _torn_bytes(path: Path) -> int:
    tail = _tail(path)
    return len(tail) - (tail.rfind(b"\n") + 1)


def _last_line(path: Path) -> bytes:
    return _tail(path).rstrip(b"\n").rpartition(b"\n")[2]


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(MAX_LINE_BYTES).rstrip(b"\n")


def _unavailable(folder: Path, error: OSError) -> AuditError:
    return AuditError(
        "audit-unavailable",
        f"the audit log cannot be written: {error.strerror or error}",
        where=str(folder),
        advice="free space in the state directory; nothing is done that cannot be audited",
    )
