"""What `edgeclave verify` and its like are given: files, times, nonces, endorsements."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from edgeclave.cli.endorsements import read_file
from edgeclave.errors import ConfigurationError
from edgeclave.evidence.endorsements import Endorsements, endorsement_folder

MAX_FILE_BYTES = 2 << 20  # a sealed result has 1 MiB and a header


def read_input(path: Path) -> bytes:
    """Raises ConfigurationError `no-such-file`, `too-large`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            "no-such-file", f"cannot read: {error.strerror}", where=str(path), advice="name a file that you may read"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(
            "too-large", f"over the limit of {MAX_FILE_BYTES} bytes", where=str(path),
            advice="nothing that is verified here is so large; name the file that holds it alone",
        )  # fmt: skip
    return data


def read_endorsements(path: Path | None) -> Endorsements:
    """A folder made by `edgeclave endorsements import`, a folder of files, one file, or the default folder.

    Raises:
        ConfigurationError: `no-such-file`, `no-endorsement`.
    """
    if path is None:
        return Endorsements(folders=[endorsement_folder()])
    if path.is_dir():
        loose = [each for file in sorted(path.iterdir()) if file.is_file() for each in read_file(file)]
        return Endorsements(loose, folders=[path])
    held = read_file(path)
    if not held:
        raise ConfigurationError(
            "no-endorsement",
            "not an endorsement this release knows",
            where=str(path),
            advice="see docs/verifying.md; a certificate is read in PEM or DER",
        )
    return Endorsements(held)


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
        raise ConfigurationError("bad-nonce", "a nonce is given in hex", where="--nonce") from error
    if nonce is not None and not 8 <= len(nonce) <= 64:
        raise ConfigurationError("bad-nonce", "a nonce has 8 to 64 bytes", where="--nonce")
    return nonce
