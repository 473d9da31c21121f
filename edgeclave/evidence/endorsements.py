"""Endorsements: what vendors say about their platforms (certificates, revocation lists, TCB information).

A verification never touches the network. It finds endorsements in a folder that the operator fills
(`edgeclave endorsements import`) or in the evidence that came; they need no trust, because each is signed up to the
anchor it is used with. Of several that cover the time of verification, the one issued last is used, so that a sender
cannot choose an older one than the operator has.

In the folder each lies at TYPE/SUBJECT/SHA-256, so that looking one up reads one small folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from edgeclave import cose
from edgeclave.errors import ConfigurationError, EvidenceError

MEDIA_TYPE = "application/edgeclave-endorsements+cbor"
MAX_ENDORSEMENT_BYTES = 256 << 10  # the largest real one, Intel collateral, has 20 KiB
MAX_CARRIED = 8  # a chain, its revocation lists and the platform's own certificate
MAX_CANDIDATES = 64  # versions of one endorsement in a folder, about five years of monthly ones
DEFAULT_FOLDER = Path(".edgeclave/endorsements")
FOLDER_VARIABLE = "EDGECLAVE_ENDORSEMENTS"
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")
ADVICE = "fetch it from the vendor and run `edgeclave endorsements import FILE`"


@dataclass(frozen=True)
class Endorsement:
    """One endorsement, unverified. `subject` is what it is about, in letters that a file name may have; times in s."""

    type: str
    subject: str
    value: bytes
    not_before: int
    not_after: int

    def __post_init__(self) -> None:
        _require_file_name(self.subject)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the value."""
        return cose.sha256(self.value)


@dataclass(frozen=True)
class EndorsementType:
    """`read` gives the endorsements of this type that a file holds, () if it holds none of this type.

    The `value` of each is such that `read` gives exactly that one again. It never raises.
    """

    name: str
    title: str
    read: Callable[[bytes], Sequence[Endorsement]]


class Endorsements:
    """Where one verification looks: folders, and endorsements at hand.

    >>> Endorsements().find(EndorsementType("example", "example", lambda data: ()), "subject", now=0)
    Traceback (most recent call last):
    edgeclave.errors.EvidenceError: no example is at hand for subject [no-endorsement]; ...
    """

    def __init__(self, at_hand: Iterable[Endorsement] = (), folders: Sequence[Path] = ()) -> None:
        self._at_hand = tuple(at_hand)
        self._folders = tuple(folders)

    def also(self, at_hand: Iterable[Endorsement]) -> Endorsements:
        """These and more."""
        return Endorsements((*self._at_hand, *at_hand), self._folders)

    def candidates(self, kind: EndorsementType, subject: str) -> list[Endorsement]:
        """All that are known, whatever the time."""
        _require_file_name(subject)
        found = [each for each in self._at_hand if (each.type, each.subject) == (kind.name, subject)]
        for folder in self._folders:
            found += _in_folder(folder / kind.name / subject, kind)
        return [each for each in found if each.subject == subject]

    def find(self, kind: EndorsementType, subject: str, now: int) -> Endorsement:
        """The one issued last of those that cover `now` (s since 1970).

        Raises:
            EvidenceError: `no-endorsement`, `endorsement-expired`, `endorsement-not-yet-valid`.
        """
        known = self.candidates(kind, subject)
        valid = [each for each in known if each.not_before <= now <= each.not_after]
        if valid:
            return max(valid, key=lambda each: (each.not_before, each.digest))
        if not known:
            raise EvidenceError("no-endorsement", f"no {kind.title} is at hand for {subject}", advice=ADVICE)
        expired = [each for each in known if each.not_after < now]
        if expired:
            latest = max(expired, key=lambda each: each.not_after)
            raise EvidenceError(
                "endorsement-expired",
                f"the {kind.title} for {subject} was valid until {day(latest.not_after)}",
                advice=f"{ADVICE}, or verify at the time the evidence was received",
            )
        raise EvidenceError(
            "endorsement-not-yet-valid",
            f"the {kind.title} for {subject} is valid from {day(min(each.not_before for each in known))} on",
            advice="check the clock, or import the one that was valid then",
        )


def endorsement_folder() -> Path:
    """The folder that EDGECLAVE_ENDORSEMENTS names, or `.edgeclave/endorsements`."""
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)


def encode_carried(endorsements: Iterable[Endorsement]) -> bytes:
    """The value of the `endorsements` item of an evidence collection: dCBOR list of [type, value]."""
    return cose.dcbor([[each.type, each.value] for each in endorsements])


def decode_carried(media_type: str, value: bytes, types: Sequence[EndorsementType]) -> list[Endorsement]:
    """Reads the `endorsements` item of an evidence collection whose kind knows these types.

    Raises:
        EvidenceError: `malformed-evidence`.
    """
    if media_type != MEDIA_TYPE:
        raise _malformed(f"they must be {MEDIA_TYPE}")
    try:
        entries = cose.load_dcbor(value)
    except cose.SignatureError as error:
        raise _malformed(error.what) from error
    if not isinstance(entries, list) or len(entries) > MAX_CARRIED:
        raise _malformed(f"they must be a list of at most {MAX_CARRIED}")
    return [_carried(entry, types) for entry in entries]


def read_any(data: bytes, types: Iterable[EndorsementType]) -> list[Endorsement]:
    """All endorsements of these types that a file holds."""
    if len(data) > MAX_ENDORSEMENT_BYTES:
        return []
    return [endorsement for kind in types for endorsement in kind.read(data)]


def store(folder: Path, endorsement: Endorsement) -> Path:
    """Writes it to its place, atomically; returns the file. Writing it again changes nothing.

    Raises:
        ConfigurationError: `cannot-write`.
    """
    path = folder / endorsement.type / endorsement.subject / endorsement.digest.hex()
    temporary = path.with_name(f".{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(endorsement.value)
        temporary.replace(path)
    except OSError as error:
        advice = "make room, or name a folder that you may write with --folder"
        raise ConfigurationError(
            "cannot-write", f"cannot write: {error.strerror}", where=str(path), advice=advice
        ) from error
    return path


def stored(folder: Path, types: Iterable[EndorsementType]) -> list[Endorsement]:
    """Everything in the folder, by type and subject, the one issued last first."""
    found: list[Endorsement] = []
    for kind in types:
        for subject in sorted(path for path in (folder / kind.name).glob("*") if path.is_dir()):
            found += sorted(_in_folder(subject, kind), key=lambda each: -each.not_before)
    return found


def day(time: int) -> str:
    """A time in s since 1970 for people: `2026-11-25 22:00 UTC`."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _require_file_name(subject: str) -> None:
    """A subject comes from evidence and names a folder. Raises ValueError: the kind's reader let something through."""
    if not _SUBJECT.fullmatch(subject):
        raise ValueError(f"not a subject of an endorsement: {subject[:80]!r}")


def _in_folder(folder: Path, kind: EndorsementType) -> list[Endorsement]:
    try:
        names = sorted(name for name in os.listdir(folder) if len(name) == 64)  # noqa: PTH208
    except OSError:
        return []
    return [each for name in names[:MAX_CANDIDATES] for each in _read_stored(folder / name, kind)]


def _read_stored(path: Path, kind: EndorsementType) -> tuple[Endorsement, ...]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ENDORSEMENT_BYTES + 1)
    except OSError:
        return ()
    if len(data) > MAX_ENDORSEMENT_BYTES or cose.sha256(data).hex() != path.name:
        return ()
    return _parsed(data, kind)


@lru_cache(maxsize=1024)  # parsing certificates and lists takes longer than reading and hashing the file
def _parsed(data: bytes, kind: EndorsementType) -> tuple[Endorsement, ...]:
    return tuple(kind.read(data))


def _carried(entry: Any, types: Sequence[EndorsementType]) -> Endorsement:
    well_formed = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], bytes)
    kind = next((kind for kind in types if well_formed and kind.name == entry[0]), None)
    if kind is None:
        raise _malformed("each must be [type, value], of a type that this kind of platform has")
    read = kind.read(entry[1])
    if len(read) != 1 or read[0].value != entry[1]:
        raise _malformed(f"not one {kind.title} in its one accepted form")
    return read[0]


def _malformed(what: str) -> EvidenceError:
    return EvidenceError(
        "malformed-evidence",
        f"not endorsements this release understands: {what}",
        advice="do not use it; it was altered or cut off, or is something else",
    )
