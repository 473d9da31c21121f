"""Whether a verified result or record belongs to the evidence it names, and is sealed to readers recent enough.

The signature alone says only that some instance made it; these checks tie it to what the verifier accepted.
"""

from __future__ import annotations

from edgeclave.errors import ResultError
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.verifier import AttestationResult
from edgeclave.results.records import VerifiedClose, VerifiedOpen
from edgeclave.results.sealed import VerifiedResult


def match_result(result: VerifiedResult, attested: AttestationResult, policy: Policy) -> None:
    """Raises ResultError `wrong-instance`, `wrong-evidence`, `wrong-identity`, `wrong-epoch`, `recipients-too-old`."""
    header, identity = result.header, attested.identity
    _require_same_instance(result.instance_id, attested)
    _require_same_evidence(header.evidence_digest, attested)
    named = (header.unique_id, header.signer_id, header.product_id, header.security_version)
    if named != (identity.unique_id, identity.signer_id, identity.product_id, identity.security_version):
        raise _mismatch("wrong-identity", "the result names another trusted application than its evidence")
    _require_same_epoch(header.epoch, attested)
    minimum = policy.minimum_recipients.get(header.output, 0)
    if header.recipients[0] < minimum:
        raise ResultError(
            "recipients-too-old",
            f"sealed to recipient set {header.recipients[0]} of {header.output}, the policy asks for {minimum}",
            advice="deploy the current recipient set to the device",
        )


def match_open(opened: VerifiedOpen, attested: AttestationResult) -> None:
    """Raises ResultError `wrong-instance`, `wrong-evidence`, `wrong-identity`, `wrong-epoch`."""
    _require_same_instance(opened.instance_id, attested)
    _require_same_evidence(opened.record.evidence_digest, attested)
    if opened.record.identity != attested.identity:
        raise _mismatch("wrong-identity", "the open record names another trusted application than its evidence")
    _require_same_epoch(opened.record.epoch, attested)
    if opened.record.predecessor != attested.epoch.predecessor:
        raise _mismatch("wrong-epoch", "open record and evidence name different predecessors")


def match_close(closed: VerifiedClose, attested: AttestationResult) -> None:
    """Raises ResultError `wrong-instance`, `wrong-epoch`."""
    _require_same_instance(closed.instance_id, attested)
    _require_same_epoch(closed.record.epoch, attested)


def _require_same_instance(instance_id: bytes, attested: AttestationResult) -> None:
    if instance_id != attested.instance_id:
        raise _mismatch("wrong-instance", "the message is by another instance than the evidence")


def _require_same_evidence(digest: bytes, attested: AttestationResult) -> None:
    if digest != attested.evidence_digest:
        raise _mismatch("wrong-evidence", "the message names other evidence")


def _require_same_epoch(epoch: int, attested: AttestationResult) -> None:
    if epoch != attested.epoch.number:
        raise _mismatch("wrong-epoch", f"epoch {epoch}, but its evidence is of epoch {attested.epoch.number}")


def _mismatch(code: str, what: str) -> ResultError:
    return ResultError(code, what, advice="verify it with the evidence it names by digest; otherwise do not use it")
