"""The verifier: evidence in, attestation result out, or one error with the reason. Offline, deny by default.

Checks are made in this order, and the first that fails ends it (PROTOCOL section 6):

1. trust anchor and endorsements: the quote verifies up to a key the policy pins; its class is one the policy names;
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
edgeclave.errors.EvidenceError: not an evidence collection: not CBOR [malformed-evidence]
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave import cose
from edgeclave.errors import EvidenceError
from edgeclave.evidence.anchors import Anchor, PlatformClass, PlatformEvidence
from edgeclave.evidence.collection import Collection, decode_collection, evidence_digest
from edgeclave.evidence.eat import Claims, Epoch, StorageLevel, parse_eat, read_eat, report_data
from edgeclave.evidence.kinds import KINDS, kind_of
from edgeclave.evidence.policy import Freshness, Policy
from edgeclave.ta.identity import Identity


@dataclass(frozen=True)
class AttestationResult:
    """What a relying party may rely on, after the verifier accepted the evidence.

    `freshness` is what was shown, not what was asked for; `device` is the IoT Hub device id bound to the anchor;
    `recipients` maps an output to version and digest of its recipient set; `host_time` is what the REE said, in ms.
    """

    platform_class: PlatformClass
    anchor: Anchor
    platform_instance: bytes
    device: str | None
    identity: Identity
    signing_key: ec.EllipticCurvePublicKey
    instance_id: bytes
    channel_key: ec.EllipticCurvePublicKey
    epoch: Epoch
    storage_level: StorageLevel
    recipients: Mapping[str, tuple[int, bytes]]
    freshness: Freshness
    evidence_digest: bytes
    host_time: int | None

    def require_device(self, device_id: str) -> None:
        """Compares the IoT Hub device id a message came from with the one bound at enrolment.

        Raises:
            EvidenceError: `wrong-device`.
        """
        if self.device is not None and self.device != device_id:
            raise EvidenceError(
                "wrong-device",
                f"evidence of the platform enrolled for {self.device} came from {device_id}",
                where=f"platform {self.platform_instance.hex()}",
                advice="a device relays another's evidence, or the anchor's device is wrong in the policy",
            )


class Verifier:
    """Appraises evidence under one policy.

    Args:
        policy: what is accepted.
        published: nonces issued and beacons published by the relying party, with the time (s since 1970) they became
            known; read at each verification, so the caller may keep adding to it.
    """

    def __init__(self, policy: Policy, *, published: Mapping[bytes, int] | None = None) -> None:
        self._policy = policy
        self._published = {} if published is None else published

    def verify(self, evidence: bytes, *, nonce: bytes | None, now: int) -> AttestationResult:
        """Args:
            evidence: an evidence collection.
            nonce: the nonce this evidence was asked for with, None for unasked evidence.
            now: s since 1970, for endorsements and age.

        Raises:
            EvidenceError: with one code per reason.
        """
        collection = decode_collection(evidence)
        platform = self._verify_platform(collection, now)
        self._check_platform(platform)
        eat = parse_eat(collection.eat)
        if not hmac.compare_digest(report_data(eat), platform.report_data):
            raise _refused(
                "wrong-report-data",
                "the platform's quote is about another EAT",
                "do not use it; quote and claims were put together by someone else",
            )
        claims = read_eat(eat)
        if platform.debug and not claims.identity.debug:
            raise _refused("debug-hidden", "the platform is in debug mode and the claims deny it", "do not use it")
        if claims.epoch.source == "emulated" and platform.anchor.platform_class != "emulated":
            raise _refused(
                "emulated-counter",
                f"a platform of class {platform.anchor.platform_class} claims a counter that is only emulated",
                "do not use it; the enclave was not started on the hardware it runs on",
            )
        freshness = self._check_freshness(claims, nonce, now)
        self._check_trusted_app(claims.identity)
        self._check_recipients(claims)
        return AttestationResult(
            platform_class=platform.anchor.platform_class,
            anchor=platform.anchor,
            platform_instance=platform.platform_instance,
            device=platform.anchor.device,
            identity=claims.identity,
            signing_key=claims.signing_key,
            instance_id=cose.thumbprint(claims.signing_key),
            channel_key=claims.channel_key,
            epoch=claims.epoch,
            storage_level=claims.storage_level,
            recipients=claims.recipients,
            freshness=freshness,
            evidence_digest=evidence_digest(evidence),
            host_time=claims.host_time,
        )

    def _verify_platform(self, collection: Collection, now: int) -> PlatformEvidence:
        kind = kind_of(collection.platform.media_type)
        anchors = [anchor for anchor in self._policy.anchors if anchor.kind == kind]
        if kind is None or not anchors:
            raise _refused(
                "untrusted-anchor",
                f"the policy has no trust anchor for {collection.platform.media_type}",
                "name an anchor of that kind in the policy, if such platforms are to be accepted",
            )
        return KINDS[kind].verify(collection.platform.value, collection.endorsements, anchors, now)

    def _check_platform(self, platform: PlatformEvidence) -> None:
        anchor = platform.anchor
        if anchor.platform_class not in self._policy.classes:
            raise _refused(
                "class-not-accepted",
                f"the platform is of class {anchor.platform_class}",
                f'add "{anchor.platform_class}" to `classes`, if that is good enough for these results',
            )
        if platform.debug and not self._policy.debug:
            raise _refused("debug-platform", "the platform is in debug mode", "use a production platform")
        if platform.runtime not in self._policy.runtime.get(anchor.kind, ()):
            raise _refused(
                "wrong-runtime",
                f"the enclave runs code with measurement {platform.runtime.hex()}, which is no reference value",
                f"install the release the policy names, or add the measurement to `runtime.{anchor.kind}`",
            )

    def _check_freshness(self, claims: Claims, nonce: bytes | None, now: int) -> Freshness:
        shown: Freshness = "unknown"
        if nonce is not None:
            if claims.nonce is None or not hmac.compare_digest(claims.nonce, nonce):
                raise _refused("wrong-nonce", "the evidence was not made for this nonce", "ask for evidence again")
            shown = "nonce"
        elif claims.nonce is not None and claims.nonce in self._published:
            shown = "beacon"
        if claims.nonce is not None and claims.nonce in self._published:
            age = now - self._published[claims.nonce]
            if not 0 <= age <= self._policy.maximum_age_seconds:
                raise _refused(
                    "evidence-too-old",
                    f"nonce or beacon is {age} s old, the policy allows {self._policy.maximum_age_seconds} s",
                    "ask for evidence again, or check the clock",
                )
        accepted = {"nonce": ("nonce",), "beacon": ("nonce", "beacon"), "unknown": ("nonce", "beacon", "unknown")}
        if shown not in accepted[self._policy.freshness]:
            raise _refused(
                "freshness-unknown" if shown == "unknown" else "not-fresh-enough",
                f"the freshness of the evidence is {shown}, the policy asks for {self._policy.freshness}",
                'ask with a nonce, publish beacons, or name `freshness = "unknown"` in the policy',
            )
        return shown

    def _check_trusted_app(self, identity: Identity) -> None:
        if identity.debug and not self._policy.debug:
            raise _refused(
                "debug-trusted-app", "the trusted application can be debugged", "use one signed without debug"
            )
        rules = [rule for rule in self._policy.trusted_apps if rule.names(identity)]
        if not rules:
            raise _refused(
                "unknown-trusted-app",
                f"the policy names neither unique_id {identity.unique_id.hex()} nor "
                f"product {identity.product_id} of signer {identity.signer_id.hex()}",
                "add it to `trusted_apps`, if it is yours",
            )
        floor = min(rule.minimum_security_version for rule in rules)
        if identity.security_version < floor:
            raise _refused(
                "security-version-too-low",
                f"security version {identity.security_version} is below {floor}",
                "upgrade the trusted application on the device",
            )

    def _check_recipients(self, claims: Claims) -> None:
        for output, minimum in self._policy.minimum_recipients.items():
            version, _ = claims.recipients.get(output, (minimum, b""))
            if version < minimum:
                raise _refused(
                    "recipients-too-old",
                    f"output {output} is sealed to recipient set {version}, the policy asks for {minimum}",
                    "deploy the current recipient set to the device",
                )


def _refused(code: str, what: str, advice: str) -> EvidenceError:
    return EvidenceError(code, what, advice=advice)
