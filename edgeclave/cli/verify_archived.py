"""`edgeclave verify --at T` of a result in an archive (PROTOCOL section 10).

1. Evidence and result are verified as of T, with the archived endorsements; they must cover T.
2. What the vendor says today is applied: a platform whose keys were revoked is refused, since a thief of a key can sign
   anything of any date; unless the list says that they were only replaced, after T. That, and a TCB no longer good
   enough, is `superseded`, and accepted as of T. If nothing valid of today is at hand, the result is refused until
   there is.
3. That the result existed at T is proven by a timestamp of an authority whose root is given, and by nothing else
   (`edgeclave archive timestamp`). Without --at, T is then the time from which on it is provable.
"""

from __future__ import annotations

import base64
import binascii
import time
from dataclasses import replace
from pathlib import Path

import msgspec

from edgeclave import cose
from edgeclave.cli.appraising import Outcome, Verdict, appraise, with_result
from edgeclave.cli.verify_inputs import STANDARD_INPUT, read_endorsements, read_limited, read_time
from edgeclave.cloud.archive import FORMAT, Record
from edgeclave.cloud.timestamps import Authorities, Timestamp, find_timestamp
from edgeclave.errors import ConfigurationError, EvidenceError
from edgeclave.evidence.collection import decode_collection
from edgeclave.evidence.ear import read_ear
from edgeclave.evidence.endorsements import Endorsement, Endorsements, EndorsementType, day
from edgeclave.evidence.kinds import KINDS, kind_of
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.policy_file import load_policy
from edgeclave.evidence.revocation import RevokedError
from edgeclave.evidence.tokens import PinnedIssuer

_SUPERSEDED = "superseded"
_RESTORE = "restore the archive from a copy; someone or something altered it"
_UNPROVABLE = EvidenceError(
    "not-provable-at",
    "not provable at T: nobody else says that it existed then, only this archive does",
    advice="have the archive timestamped soon after receipt (`edgeclave archive timestamp`), and give --timestamp-ca",
)


def looks_like_record(data: bytes) -> bool:
    """Whether a file is a result of an archive, as far as a glance can tell."""
    return data.startswith(b'{"format":"edgeclave-archive/')


def verify_archived(
    file: Path,
    data: bytes,
    policy: Policy | None,
    at: str | None,
    today: Path | None,
    pinned: PinnedIssuer | None,
    timestamp_ca: Path | None,
) -> Outcome:
    """Args:
        file: DIR/results/AA/DIGEST.json.
        policy: the archived one if None.
        at: the time of receipt if None.
        today: endorsements of today.
        timestamp_ca: root of the timestamp authority that is believed, PEM.

    Raises:
        ConfigurationError: `not-readable`, `archive-damaged`, `no-such-file`, `bad-policy`.
    """
    if file == STANDARD_INPUT:
        raise ConfigurationError(
            "not-readable",
            "a result of an archive, whose evidence lies next to it there",
            where="standard input",
            advice="name its file in the archive: DIR/results/AA/DIGEST.json",
        )
    record, result = _record(file, data)
    archive = file.resolve().parent.parent.parent
    evidence = _digested(archive / "evidence" / f"{record.evidence}.cbor", record.evidence)
    if policy is None:
        path = archive / "policies" / f"{record.policy}.toml"
        _digested(path, record.policy)
        policy = load_policy(path)
    existed = None if timestamp_ca is None else _existed(archive, file, data, timestamp_ca)
    when = read_time(at) if at else existed.time if isinstance(existed, Timestamp) else record.received_at
    known = Endorsements(folders=[archive / "endorsements"])
    outcome = appraise(evidence, policy, None, when, known)
    if outcome is None:
        raise _damaged(archive, "the evidence is none")
    received = f"received from {record.device} at {day(record.received_at)}"
    outcome = replace(outcome, what=f"an archived sealed result and its evidence, {received}")
    outcome = with_result(outcome, result, evidence, policy, None, known)
    more = (
        _attestation_result(archive / "evidence" / f"{record.evidence}.jwt", record, pinned),
        _since(evidence, policy, when, known, read_endorsements(today)),
        _provable(existed, when),
    )
    return replace(outcome, verdicts=(*outcome.verdicts, *more))


def _since(evidence: bytes, policy: Policy, when: int, then: Endorsements, today: Endorsements) -> Verdict:
    """What became known after T."""
    item = decode_collection(evidence).platform
    kind = KINDS.get(kind_of(item.media_type) or "")
    if kind is None:
        return Verdict("since", "not reached", "no platform")
    if kind.revoked_by is None:
        return Verdict("since", "passed", "nobody publishes which such platforms were revoked; the policy pins a key")
    anchors = [anchor for anchor in policy.anchors if anchor.kind == kind.name]
    now = int(time.time())
    try:
        platform = kind.verify(item.value, _Both(today, then), anchors, now)
    except EvidenceError as error:
        if isinstance(error, RevokedError) and not error.stolen and error.at > when:
            return Verdict("since", "passed", "superseded", _superseded(when, error.what))
        if error.code == "platform-revoked":
            refusal = EvidenceError("revoked-since", f"{error.what}, as is known today", advice=error.advice)
            return Verdict("since", "failed", "revoked", refusal)
        if error.code == "tcb-unknown":
            return Verdict("since", "passed", "superseded", _superseded(when, "it is below every level of today"))
        return _unknown(error.what)
    if not platform.revocation_checked:
        return _unknown(f"no {kind.revoked_by.title} is at hand")
    objection = None if platform.tcb is None else policy.tcb_objection(kind.name, platform.tcb, when)
    if platform.tcb is not None and objection is not None:
        said = " with ".join(filter(None, (platform.tcb.status, ", ".join(platform.tcb.advisories))))
        return Verdict("since", "passed", "superseded", _superseded(when, f"its TCB is {said} today"))
    return Verdict("since", "passed", "its keys are not revoked, and its TCB is still good enough")


def _unknown(what: str) -> Verdict:
    refusal = EvidenceError(
        "revocations-unknown",
        f"whether its keys were revoked is not known: {what}",
        advice="run `edgeclave endorsements fetch` or `import` with what the vendor publishes today",
    )
    return Verdict("since", "failed", "not known", refusal)


class _Both(Endorsements):
    """Today's, and what is archived: a certificate does not change, and of lists the one issued last is used."""

    def __init__(self, today: Endorsements, then: Endorsements) -> None:
        super().__init__()
        self._both = (today, then)

    def candidates(self, kind: EndorsementType, subject: str) -> list[Endorsement]:
        found = [each for where in self._both for each in where.candidates(kind, subject)]
        return list({each.digest: each for each in found}.values())


def _superseded(when: int, what: str) -> EvidenceError:
    return EvidenceError(
        _SUPERSEDED,
        f"accepted as of {day(when)}, since superseded: {what}",
        advice="it was good enough then; decide whether what became known since matters for this result",
    )


def _existed(archive: Path, file: Path, data: bytes, root: Path) -> Timestamp | EvidenceError:
    authorities = Authorities.from_pem(root)
    try:
        found = find_timestamp(archive, file.resolve().relative_to(archive).as_posix(), data, authorities)
    except EvidenceError as error:
        return error
    return found or _UNPROVABLE


def _provable(existed: Timestamp | EvidenceError | None, when: int) -> Verdict:
    """Who asks for a proof is refused without one; who does not is told that there is none."""
    if existed is None:
        return Verdict("time", "not judged", "", _UNPROVABLE)
    if isinstance(existed, EvidenceError):
        return Verdict("time", "failed", "not proven", existed)
    said = f"it existed at {day(existed.time)}, says the timestamp authority {existed.authority}"
    if existed.time <= when:
        return Verdict("time", "passed", f"provable at T: {said}")
    later = EvidenceError(
        "not-provable-at",
        f"not provable at T, which is earlier: {said}",
        advice=f"verify as of then (--at {existed.time}), or leave --at out",
    )
    return Verdict("time", "failed", said, later)


def _attestation_result(path: Path, record: Record, pinned: PinnedIssuer | None) -> Verdict:
    if pinned is None:
        return Verdict("attestation", "not judged", "no verifier is pinned; add --issuer and --jwks")
    try:
        token = read_limited(path).decode()
        # The token says when it was made; it was valid then. That it is old is why it lies in an archive.
        claims = read_ear(token, pinned, now=_issued_at(token))
        if claims.get("edgeclave.evidence-digest") != record.evidence:
            raise EvidenceError("wrong-evidence", "it is about other evidence", advice="the archive was altered")  # noqa: TRY301
    except (EvidenceError, ValueError, IndexError) as error:
        refusal = (
            error
            if isinstance(error, EvidenceError)
            else EvidenceError("malformed-token", "not a token", advice=_RESTORE)
        )
        return Verdict("attestation", "failed", "no attestation result of the pinned verifier", refusal)
    return Verdict("attestation", "passed", f"{pinned.issuer} accepted the evidence: {claims['ear.status']}")


def _issued_at(token: str) -> int:
    """Read before the signature is: it only chooses the time at which the token must have been valid."""
    payload = token.split(".")[1]
    claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=dict[str, object])
    issued = claims.get("iat")
    return issued if type(issued) is int else 0


def _record(file: Path, data: bytes) -> tuple[Record, bytes]:
    try:
        record = msgspec.json.decode(data, type=Record)
        result = base64.b64decode(record.result, validate=True)
        digests = [bytes.fromhex(each) for each in (record.evidence, record.policy)]
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError) as error:
        raise ConfigurationError(
            "not-readable", f"not a record of an archive: {error}", where=str(file), advice=_RESTORE
        ) from error
    if record.format != FORMAT or any(len(each) != 32 for each in digests):
        raise ConfigurationError(
            "not-readable", "not a record that this release knows", where=str(file), advice=_RESTORE
        )
    if cose.sha256(result).hex() != file.stem:
        raise _damaged(file, "it holds another result than its name says")
    return record, result


def _digested(path: Path, digest: str) -> bytes:
    data = read_limited(path)
    if cose.sha256(data).hex() != digest:
        raise _damaged(path, "the file is not what its name says")
    return data


def _damaged(where: Path, what: str) -> ConfigurationError:
    return ConfigurationError(
        "archive-damaged",
        what,
        where=str(where),
        advice=_RESTORE,
    )
