"""Timestamps of an archive (RFC 3161): somebody else says that its files existed at a time.

    timestamps/DIGEST.sha256     "SHA-256  PATH" of files of the archive, a line each, as sha256sum writes them
    timestamps/DIGEST.tsr        what a timestamp authority answered about that list

DIGEST is the SHA-256 of the list. So one question to the authority is about thousands of results, and it learns nothing
of them. Nobody needs this program to check it:

    sha256sum --check timestamps/DIGEST.sha256
    openssl ts -verify -in timestamps/DIGEST.tsr -data timestamps/DIGEST.sha256 -CAfile ca.pem

Earlier timestamps are files of the archive like any other: they are on the next list, and so are held up by its
authority after their own algorithms have aged.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import rfc3161_client
from cryptography import x509

from edgeclave.cloud.archive import write_durably
from edgeclave.errors import ConfigurationError, EvidenceError
from edgeclave.evidence.x509_errors import UNREADABLE

FOLDER = "timestamps"
MAX_LISTED = 10_000  # files on one list, 1.5 MB
MAX_LIST_BYTES = 4 << 20
MAX_ROOTS_BYTES = 1 << 20  # of the authorities that are believed; all of the public ones would fit
MAX_TOKEN_BYTES = 64 << 10  # with the certificates of the authority 5 KiB
_RESOLUTION_SECONDS = 1  # of genTime, where the authority does not say how accurate it is


@dataclass(frozen=True)
class Timestamp:
    """It existed at `time` (s since 1970, the latest that the authority's accuracy allows), an authority says."""

    time: int
    authority: str


@dataclass(frozen=True)
class Authorities:
    """Roots of timestamp authorities that are believed, and certificates below them that answers may leave out."""

    roots: tuple[x509.Certificate, ...]
    others: tuple[x509.Certificate, ...] = ()

    @classmethod
    def from_pem(cls, path: Path) -> Authorities:
        """Raises ConfigurationError `no-such-file`."""
        try:
            with path.open("rb") as file:
                found = x509.load_pem_x509_certificates(file.read(MAX_ROOTS_BYTES))
            roots = tuple(each for each in found if each.subject == each.issuer)
            if not roots:
                raise ValueError("no certificate in it is a root")
            return cls(roots, tuple(each for each in found if each not in roots))
        except (OSError, *UNREADABLE) as error:
            what = error.strerror if isinstance(error, OSError) else "it holds no self-signed certificate in PEM"
            raise ConfigurationError(
                "no-such-file",
                f"cannot read the authority's root: {what}",
                where=f"--timestamp-ca {path}",
                advice="name the file that holds its root certificate, as PEM",
            ) from error

    def verify(self, answer: bytes, data: bytes, nonce: int | None = None) -> Timestamp:
        """Args:
            answer: a TimeStampResp in DER.
            data: what it must be about.
            nonce: what was asked with, if it was just asked.

        Raises:
            EvidenceError: `bad-timestamp`.
        """
        if len(answer) > MAX_TOKEN_BYTES:
            raise _bad(f"{len(answer)} bytes is over the limit of {MAX_TOKEN_BYTES}")
        refusal: Exception | None = None
        for root in self.roots:
            try:
                response = rfc3161_client.decode_timestamp_response(answer)
                if response.status != rfc3161_client.PKIStatus.GRANTED:
                    raise _bad(f"the authority refused, with status {response.status} {response.status_string}")
                builder = rfc3161_client.VerifierBuilder(roots=[root], intermediates=list(self.others), nonce=nonce)
                builder.build().verify_message(response, data)
                return Timestamp(_latest(response.tst_info), root.subject.rfc4514_string())
            except (rfc3161_client.VerificationError, OverflowError, *UNREADABLE) as error:
                refusal = refusal or error
        raise _bad(str(refusal)) from refusal


def _latest(said: rfc3161_client.TimeStampTokenInfo) -> int:
    accuracy, seconds = said.accuracy, said.gen_time.timestamp()
    if accuracy is None:
        return math.ceil(seconds + _RESOLUTION_SECONDS)
    parts = ((accuracy.seconds, 1), (accuracy.millis, 1e3), (accuracy.micros, 1e6))
    return math.ceil(seconds + sum((value or 0) / unit for value, unit in parts))


def unlisted(archive: Path) -> list[str]:
    """Files of the archive that are on no timestamped list, as paths from its folder, sorted; empty also if nothing is
    new but earlier timestamps.
    """
    listed = {path for _, digests in _lists(archive) for path in digests}
    found = [
        path.relative_to(archive).as_posix()
        for path in archive.rglob("*")
        if not path.name.startswith(".") and path.is_file()
    ]
    new = sorted(path for path in found if path not in listed)
    return new if any(not path.startswith(f"{FOLDER}/") for path in new) else []


def list_files(archive: Path, paths: Sequence[str]) -> bytes:
    """The list of these files as they are now."""
    lines = (f"{hashlib.sha256((archive / path).read_bytes()).hexdigest()}  {path}\n" for path in paths)
    return "".join(lines).encode()


def store_timestamp(archive: Path, listed: bytes, answer: bytes) -> Path:
    """Writes both durably, the list first; returns the path of the answer.

    Raises:
        ConfigurationError: `cannot-write`.
    """
    place = archive / FOLDER / hashlib.sha256(listed).hexdigest()
    try:
        for suffix, data in ((".sha256", listed), (".tsr", answer)):
            write_durably(place.with_suffix(suffix), data)
    except OSError as error:
        raise ConfigurationError(
            "cannot-write",
            f"cannot write: {error}",
            where=str(place.parent),
            advice="make room, or make the archive writable",
        ) from error
    return place.with_suffix(".tsr")


def find_timestamp(archive: Path, path: str, data: bytes, authorities: Authorities) -> Timestamp | None:
    """The earliest valid one of a file with these contents, None if it is on no list.

    Raises:
        EvidenceError: `bad-timestamp`, if it is on lists and none of them is timestamped by a trusted authority.
    """
    digest = hashlib.sha256(data).hexdigest()
    found: list[Timestamp] = []
    refusal: EvidenceError | None = None
    for listed, digests in _lists(archive):
        if path not in digests:
            continue
        if digests[path] != digest:
            refusal = _bad("the file is not the one that was timestamped")
            continue
        try:
            found.append(authorities.verify(_answer(archive, listed), listed))
        except EvidenceError as error:
            refusal = error
    if not found and refusal is not None:
        raise refusal
    return min(found, key=lambda each: each.time, default=None)


def _lists(archive: Path) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Each list that is what its name says and was answered: its bytes, and path to digest."""
    for path in sorted((archive / FOLDER).glob("*.sha256")):
        try:
            with path.open("rb") as file:
                listed = file.read(MAX_LIST_BYTES + 1)
        except OSError:
            continue
        if len(listed) > MAX_LIST_BYTES or hashlib.sha256(listed).hexdigest() != path.stem:
            continue
        if path.with_suffix(".tsr").exists():
            lines = (line.partition("  ") for line in listed.decode("utf-8", "replace").splitlines())
            yield listed, {name: digest for digest, _, name in lines}


def _answer(archive: Path, listed: bytes) -> bytes:
    path = archive / FOLDER / f"{hashlib.sha256(listed).hexdigest()}.tsr"
    try:
        with path.open("rb") as file:
            return file.read(MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise _bad(f"cannot read it: {os.strerror(error.errno or 0)}") from error


def _bad(what: str) -> EvidenceError:
    return EvidenceError(
        "bad-timestamp",
        f"not a timestamp of this by a trusted authority: {what}",
        advice="check --timestamp-ca, or restore the archive from a copy",
    )
