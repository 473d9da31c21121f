"""The archive of a relying party: what is needed to prove an accepted result again, years later (PROTOCOL section 10).

    evidence/DIGEST.cbor, DIGEST.jwt     once per evidence: as received, and the signed attestation result at receipt
    endorsements/TYPE/SUBJECT/DIGEST     all that the appraisal used, as `edgeclave endorsements import` lays them out
    policies/DIGEST.toml                 once per policy, with the keys it names inside
    results/AA/DIGEST.json               one per accepted result: the result itself, and which of the above belong to it
    timestamps/                          lists of these files, and what timestamp authorities say of them (`timestamps`)

Digests are SHA-256 in hex. A file is written under another name, made durable, and renamed; what a result refers to is
durable before the result is, and results are durable before the reader commits that it has read them. So after a crash
nothing is half there, and what was not committed is read and archived again, as the same files.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from edgeclave import cose
from edgeclave.cloud.heads import StoredEvidence
from edgeclave.errors import ConfigurationError
from edgeclave.evidence.ear import make_ear
from edgeclave.evidence.endorsements import Endorsement, Endorsements, EndorsementType
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.tokens import TokenSigner
from edgeclave.evidence.verifier import Verifier

FORMAT = "edgeclave-archive/1"
ISSUER = "urn:edgeclave:consume"
TOKEN_SECONDS = 3600


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One accepted result. Times in s since 1970; digests in hex; `result` in base64."""

    format: str
    received_at: int
    device: str
    evidence: str
    policy: str
    result: str


class Archive:
    """Writes one archive folder.

    Args:
        policy_text: the policy in one file (`policy_file.embed_policy`).
        signer: signs the attestation results; its issuer is ISSUER.
    """

    def __init__(
        self, folder: Path, policy: Policy, policy_text: bytes, endorsements: Endorsements, signer: TokenSigner
    ) -> None:
        self._folder = folder
        self._policy = policy
        self._endorsements = endorsements
        self._signer = signer
        self._policy_digest = cose.sha256(policy_text).hex()
        self._known: set[str] = set()
        self._pending: list[tuple[Path, bytes]] = []
        self._touched: set[Path] = set()
        self._add(folder / "policies" / f"{self._policy_digest}.toml", policy_text)
        self.flush()

    def add(self, result: bytes, device: str, received_at: int, stored: StoredEvidence) -> None:
        """One accepted result and the evidence it names; durable after `flush`."""
        evidence = cose.sha256(stored.body).hex()
        if evidence not in self._known:
            self._add_evidence(evidence, stored)
            self._known.add(evidence)
        text = base64.b64encode(result).decode()
        record = Record(FORMAT, received_at, device, evidence, self._policy_digest, text)
        digest = cose.sha256(result).hex()
        self._add(self._folder / "results" / digest[:2] / f"{digest}.json", msgspec.json.encode(record))

    def flush(self) -> None:
        """Makes everything durable that was added, in the order in which it was added.

        Raises:
            ConfigurationError: `cannot-write`.
        """
        try:
            for path, data in self._pending:
                _write(path, data)
            for folder in sorted(self._touched, reverse=True):  # the inner ones first
                _sync(folder)
        except OSError as error:
            advice = "make room, or make the archive writable; nothing was taken as read"
            raise ConfigurationError(
                "cannot-write", f"cannot write the archive: {error}", where=str(self._folder), advice=advice
            ) from error
        self._pending.clear()
        self._touched.clear()

    def discard(self) -> None:
        """Forgets what was added since `flush`: the reader did not accept it after all."""
        self._pending.clear()
        self._touched.clear()
        self._known.clear()

    def _add_evidence(self, digest: str, stored: StoredEvidence) -> None:
        used = RecordingEndorsements(self._endorsements)
        now = stored.received_at
        attested = Verifier(self._policy, endorsements=used).verify(stored.body, nonce=None, now=now)
        token = make_ear(self._signer, attested, nonce=None, now=now, lifetime_seconds=TOKEN_SECONDS)
        folder = self._folder / "evidence"
        for each in used.found.values():
            place = self._folder / "endorsements" / each.type / each.subject / each.digest.hex()
            self._add(place, each.value)
        self._add(folder / f"{digest}.jwt", token.encode())
        self._add(folder / f"{digest}.cbor", stored.body)

    def _add(self, path: Path, data: bytes) -> None:
        """The first that was written stays: it is what was known at receipt."""
        # Also where it exists: it may be of a run that ended before it made the folder durable.
        self._touched |= {path.parent, path.parent.parent, self._folder}
        if not path.exists():
            self._pending.append((path, data))


class RecordingEndorsements(Endorsements):
    """Endorsements that keep what was looked at, in `found` by digest."""

    def __init__(self, inner: Endorsements, found: dict[bytes, Endorsement] | None = None) -> None:
        super().__init__()
        self._inner = inner
        self.found = {} if found is None else found

    def also(self, at_hand: Iterable[Endorsement]) -> Endorsements:
        return RecordingEndorsements(self._inner.also(at_hand), self.found)

    def candidates(self, kind: EndorsementType, subject: str) -> list[Endorsement]:
        candidates = self._inner.candidates(kind, subject)
        self.found.update((each.digest, each) for each in candidates)
        return candidates


def write_durably(path: Path, data: bytes) -> None:
    """One file, complete or not at all, and its folder. Raises OSError."""
    _write(path, data)
    _sync(path.parent)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
