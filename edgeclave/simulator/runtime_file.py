"""`runtime.json` in the state directory: what other commands need to know about a running simulator.

It can outlive a killed simulator, so it counts only while the state directory is locked.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from edgeclave.simulator.settings import Settings
from edgeclave.simulator.state import is_running

FILE_NAME = "runtime.json"


class Runtime(msgspec.Struct, frozen=True, rename="camel"):
    """No secrets but those in `settings`; the file is 0600 like the database they come from."""

    pid: int
    settings: Settings
    ca_file: str


def write_runtime(directory: Path, runtime: Runtime) -> None:
    temporary = directory / f"{FILE_NAME}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(runtime)))
    temporary.replace(directory / FILE_NAME)


def read_runtime(directory: Path) -> Runtime | None:
    """The running simulator of this state directory, or None."""
    if not is_running(directory):
        return None
    try:
        return msgspec.json.decode((directory / FILE_NAME).read_bytes(), type=Runtime)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def remove_runtime(directory: Path) -> None:
    (directory / FILE_NAME).unlink(missing_ok=True)
