"""What `edgeclave verify` and its like are given: files, times, nonces, endorsements."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from edgeclave.errors import ConfigurationError
from edgeclave.evidence.endorsements import MAX_ENDORSEMENT_BYTES, Endorsement, Endorsements, endorsement_folder
from edgeclave.evidence.kinds import endorsement_types
from edgeclave.evidence.wrapped_files import endorsements_in

STANDARD_INPUT = Path("-")
MAX_FILE_BYTES = 2 << 20  # a sealed result has 1 MiB and a header


def read_input(path: Path) -> bytes:
    """What a FILE argument names, `-` for standard input.

    Raises:
        ConfigurationError: `no-such-file`, `too-large`.
    """
    if path != STANDARD_INPUT:
        return read_limited(path)
    return _read(_standard_input, "standard input", MAX_FILE_BYTES)


def read_limited(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """A file of at most so many bytes.

    Raises:
        ConfigurationError: `no-such-file`, `too-large`.
    """
    return _read(lambda: path.open("rb"), str(path), limit)


def read_endorsements(path: Path | None) -> Endorsements:
    """A folder made by `edgeclave endorsements import`, a folder of files, one file, or the default folder.

    Raises:
        ConfigurationError: `no-such-file`, `too-large`, `no-endorsement`.
    """
    if path is None:
        return Endorsements(folders=[endorsement_folder()])
    if path.is_dir():
        loose = [each for _, held in read_endorsement_files(path, but=endorsement_types()) for each in held]
        return Endorsements(loose, folders=[path])
    held = read_endorsement_file(path)
    if not held:
        raise ConfigurationError(
            "no-endorsement",
            "not an endorsement this release knows, or cut off",
            where=str(path),
            advice="see docs/verifying.md for the forms that are read, or run `edgeclave endorsements fetch`",
        )
    return Endorsements(held)


def read_endorsement_file(path: Path) -> list[Endorsement]:
    """What a file holds, in whatever other tools put around it; nothing if it holds none.

    Raises:
        ConfigurationError: `no-such-file`, `too-large`.
    """
    return endorsements_in(read_limited(path, MAX_ENDORSEMENT_BYTES), endorsement_types().values())


def read_endorsement_files(folder: Path, *, but: Container[str] = ()) -> Iterator[tuple[Path, list[Endorsement]]]:
    """Every file of a folder and of all folders in it, except some; and what it holds, nothing if it is too large.

    Raises:
        ConfigurationError: `no-such-file`.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).parts[0] not in but:
            small = path.stat().st_size <= MAX_ENDORSEMENT_BYTES
            yield path, read_endorsement_file(path) if small else []


def read_time(text: str | None, option: str = "--at") -> int:
    """s since 1970, from such a number or an ISO 8601 time (UTC unless it says otherwise); now if None.

    Raises:
        ConfigurationError: `bad-time`.
    """
    if text is None:
        return int(time.time())
    try:
        if text.isascii() and text.isdigit():
            seconds = int(text)
        else:
            when = datetime.fromisoformat(text)
            seconds = int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
        datetime.fromtimestamp(seconds, UTC)  # in a year from 1 to 9999, so that it can be shown
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigurationError(
            "bad-time", f"not a time: {text}", where=option, advice="use 2026-03-31T12:00:00Z or s since 1970"
        ) from error
    return seconds


def read_nonce(text: str | None) -> bytes | None:
    """Raises ConfigurationError `bad-nonce`."""
    try:
        nonce = None if text is None else bytes.fromhex(text)
    except ValueError as error:
        raise _bad_nonce(f"not in hex: {text!r:.80}") from error
    if nonce is not None and not 8 <= len(nonce) <= 64:
        raise _bad_nonce(f"a nonce has 8 to 64 bytes, this one {len(nonce)}")
    return nonce


def _bad_nonce(what: str) -> ConfigurationError:
    return ConfigurationError(
        "bad-nonce", what, where="--nonce", advice="give the nonce that the evidence was asked for with, in hex"
    )


def _standard_input() -> AbstractContextManager[BinaryIO]:
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    return nullcontext(sys.stdin.buffer)


def _read(opened: Callable[[], AbstractContextManager[BinaryIO]], where: str, limit: int) -> bytes:
    try:
        with opened() as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ConfigurationError(
            "no-such-file", f"cannot read: {error.strerror}", where=where, advice="name a file that you may read"
        ) from error
    if len(data) > limit:
        raise ConfigurationError(
            "too-large",
            f"over the limit of {limit} bytes",
            where=where,
            advice="nothing that is read here is so large; name the file that holds it alone",
        )
    return data
