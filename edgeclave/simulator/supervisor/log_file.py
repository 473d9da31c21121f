"""A module's log: one file that whatever runs the module appends to, kept to a size."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MAX_LOG_BYTES = 16 << 20
_TAIL_BYTES = 4096
_LINE_CHARACTERS = 300


def open_log(path: Path) -> int:
    """A descriptor that appends; the caller closes it."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def append(path: Path, line: str) -> None:
    descriptor = open_log(path)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def trim(path: Path) -> None:
    """Keeps a log and its predecessor (`.1`) to a size; the module goes on appending to the same open file."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > MAX_LOG_BYTES:
            older = path.with_name(path.name + ".1")
            older.write_bytes(path.read_bytes()[-MAX_LOG_BYTES:])
            older.chmod(0o600)
            os.truncate(path, 0)


def last_line(path: Path) -> str:
    """The last line that says something, shortened; empty without one."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:_LINE_CHARACTERS] for line in reversed(lines) if line.strip()), "")
