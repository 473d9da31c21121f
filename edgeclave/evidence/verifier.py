"""The verifier: evidence in, attestation result out, or one error with the reason. Offline, deny by default.

Checks are made in this order, and the first that fails ends it (PROTOCOL section 6):

1. trust anchor and endorsements: the quote verifies, at the time asked for, up to a key the policy pins; its class is
   one the policy names, and so is its TCB status;
2. platform flags: no debug, unless the policy accepts it;
3. runtime: the measured enclave code is a reference value of the policy. Nothing the enclave says is read before;
4. report data: the quote is about exactly this EAT;
5. the EAT's signature by the key in its cnf claim;
6. claims: known, complete, in their one form;
7. policy: freshness, debug, trusted application, security version, recipient sets.

>>> from edgeclave.evidence.policy import Policy
>>> policy = Policy(anchors=(), runtime={}, classes=frozenset(), trusted_apps=())
>>> Verifier(policy).verify(b"", nonce=None, now=0)
Traceback (most recent call last):
edgeclave.errors.EvidenceError: not an evidence collection: not CBOR [malformed-evidence]; ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave import cose
from edgeclave.errors import EvidenceError
from edgeclave.evidence.anchors import Anchor, PlatformClass, PlatformEvidence, Tcb
from edgeclave.evidence.appraisal import Appraisal, Check
from edgeclave.evidence.collection import evidence_digest
from edgeclave.evidence.eat import Claims, Epoch, StorageLevel
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.policy import Freshness, Policy
from edgeclave.ta.identity import Identity


@dataclass(frozen=True)
class AttestationResult:
    """What a relying party may rely on, after the verifier accepted the evidence.

    `freshness` is what was shown, not what was asked for; `device` is the IoT Hub device id bound to the platform;
    `recipients` maps an output to version and digest of its recipient set; `host_time` is what the REE said, in ms;
    `tcb` is None where the platform's vendor gives no status.
    """

    anchor: Anchor
    platform_instance: bytes
    device: str | None
    identity: Identity
    signing_key: ec.EllipticCurvePublicKey
    channel_key: ec.EllipticCurvePublicKey
    epoch: Epoch
    storage_level: StorageLevel
    recipients: Mapping[str, tuple[int, bytes]]
    freshness: Freshness
    evidence_digest: bytes
    host_time: int | None
    tcb: Tcb | None = None

    @cached_property
    def instance_id(self) -> bytes:
        """The thumbprint of the signing key, 32 bytes."""
        return cose.thumbprint(self.signing_key)

    @property
    def platform_class(self) -> PlatformClass:
        """What the platform is called: the class of the anchor that verified."""
        return self.anchor.platform_class

    @property
    def test(self) -> bool:
        """Whether it is evidence of stand-in hardware, which proves nothing."""
        return self.anchor.test

    def require_device(self, device_id: str) -> None:
        """Compares the IoT Hub device id a message came from with the one bound at enrolment.

        Raises:
            EvidenceError: `wrong-device`, `not-enrolled`.
        """
        if self.device is None and self.anchor.is_root:
            raise EvidenceError(
                "not-enrolled",
                f"the platform that {device_id} sends evidence of is bound to no device",
                where=f"platform {self.platform_instance.hex()}",
                advice=f'make sure it is that device, and add `{device_id} = ["{self.platform_instance.hex()}"]` to '
                "[devices] of the policy",
            )
        if self.device is not None and self.device != device_id:
            raise EvidenceError(
                "wrong-device",
                f"evidence of the platform enrolled for {self.device} came from {device_id}",
                where=f"platform {self.platform_instance.hex()}",
                advice="a device relays another's evidence, or the anchor's device is wrong in the policy",
            )


@dataclass(frozen=True)
class Explanation:
    """Every check in its order, and what the evidence says.

    What stands behind a failed check is only said, not proven. The list ends where nothing is left to look at.
    """

    checks: tuple[Check, ...]
    platform: PlatformEvidence | None
    claims: Claims | None


class Verifier:
    """Appraises evidence under one policy.

    Args:
        policy: what is accepted.
        published: nonces issued and beacons published by the relying party, with the time (s since 1970) they became
            known; read at each verification, so the caller may keep adding to it.
        endorsements: where to look for what vendors say about platforms, besides the evidence itself.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        published: Mapping[bytes, int] | None = None,
        endorsements: Endorsements | None = None,
    ) -> None:
        self._policy = policy
        self._published = {} if published is None else published
        self._endorsements = endorsements or Endorsements()

    def verify(self, evidence: bytes, *, nonce: bytes | None, now: int) -> AttestationResult:
        """Args:
            evidence: an evidence collection.
            nonce: the nonce this evidence was asked for with, None for unasked evidence.
            now: s since 1970, for endorsements and age.

        Raises:
            EvidenceError: with one code per reason.
        """
        appraisal = self._appraisal(nonce, now)
        _require(appraisal.of_evidence(evidence))
        platform, claims = appraisal.platform, appraisal.claims
        return AttestationResult(
            anchor=platform.anchor,
            platform_instance=platform.platform_instance,
            device=self._policy.devices.get(platform.platform_instance, platform.anchor.device),
            identity=claims.identity,
            signing_key=claims.signing_key,
            channel_key=claims.channel_key,
            epoch=claims.epoch,
            storage_level=claims.storage_level,
            recipients=claims.recipients,
            freshness=appraisal.freshness,
            evidence_digest=evidence_digest(evidence),
            host_time=claims.host_time,
            tcb=platform.tcb,
        )

    def verify_quote(self, kind: str, quote: bytes, *, now: int) -> PlatformEvidence:
        """Appraises a raw quote or report: the platform and its runtime. It says nothing of a trusted application.

        Raises:
            EvidenceError: with one code per reason.
        """
        appraisal = self._appraisal(None, now)
        _require(appraisal.of_quote(kind, quote))
        return appraisal.platform

    def explain(self, evidence: bytes, *, nonce: bytes | None, now: int) -> Explanation:
        """All checks that `verify` makes, in their order, without stopping at the first that fails."""
        appraisal = self._appraisal(nonce, now)
        return _explanation(appraisal, appraisal.of_evidence(evidence))

    def explain_quote(self, kind: str, quote: bytes, *, now: int) -> Explanation:
        """All checks that `verify_quote` makes, likewise."""
        appraisal = self._appraisal(None, now)
        return _explanation(appraisal, appraisal.of_quote(kind, quote))

    def _appraisal(self, nonce: bytes | None, now: int) -> Appraisal:
        return Appraisal(self._policy, self._endorsements, self._published, nonce, now)


def _require(checks: Iterator[Check]) -> None:
    for check in checks:
        if check.error is not None:
            raise check.error


def _explanation(appraisal: Appraisal, checks: Iterator[Check]) -> Explanation:
    made = tuple(checks)
    return Explanation(made, getattr(appraisal, "platform", None), getattr(appraisal, "claims", None))
