"""Which instances a reader trusts: evidence that was received, appraised under the policy of now.

Evidence counts for the device that sent it only. What a device sends is never believed because another one proved it.
"""

from __future__ import annotations

from functools import lru_cache

from edgeclave.cloud.events import Event
from edgeclave.cloud.heads import HeadStore, StoredEvidence
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.verifier import AttestationResult, Verifier

REMEMBERED = 1024  # attestation results kept in memory; verifying one again takes milliseconds


class TrustedInstances:
    """Looks instances up by the evidence that a message names, or by instance_id."""

    def __init__(self, policy: Policy, store: HeadStore, endorsements: Endorsements | None = None) -> None:
        self._verifier = Verifier(policy, endorsements=endorsements)
        self._store = store
        self._appraised = lru_cache(REMEMBERED)(self._appraise)

    def receive(self, event: Event, now: int) -> tuple[AttestationResult, bool]:
        """Appraises evidence and keeps it; also says whether it is new.

        Raises:
            EvidenceError: with one code per reason.
        """
        stored = StoredEvidence(event.device, now, event.body)
        attested = self._appraised(stored)
        return attested, self._store.add_evidence(attested.evidence_digest, attested.instance_id, stored)

    def by_evidence(self, digest: bytes, device: str) -> AttestationResult | None:
        """Raises EvidenceError if the evidence is there and does not pass any more."""
        stored = self._store.evidence(digest, device)
        return self._appraised(stored) if stored else None

    def by_instance(self, instance_id: bytes, device: str) -> AttestationResult | None:
        """Raises EvidenceError if the evidence is there and does not pass any more."""
        stored = self._store.evidence_of_instance(instance_id, device)
        return self._appraised(stored) if stored else None

    def _appraise(self, stored: StoredEvidence) -> AttestationResult:
        attested = self._verifier.verify(stored.body, nonce=None, now=stored.received_at)
        attested.require_device(stored.device)
        return attested
