"""One appraisal: the checks of PROTOCOL section 6 in their order, each a `Check` that says what was found.

The checks are made lazily. A verifier stops at the first that fails, so nothing behind it is read; an explanation goes
on as far as there is something to look at. Both run the same code.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from edgeclave import cose
from edgeclave.errors import EvidenceError
from edgeclave.evidence.anchors import PlatformEvidence
from edgeclave.evidence.collection import Collection, decode_collection
from edgeclave.evidence.eat import Claims, parse_eat, read_eat, report_data
from edgeclave.evidence.endorsements import Endorsements, decode_carried
from edgeclave.evidence.kinds import KINDS, kind_of
from edgeclave.evidence.policy import FRESHNESS, Freshness, Policy

PLATFORM_POINTS = ("platform", "class", "tcb", "debug", "runtime")
POINTS = (
    "form",
    *PLATFORM_POINTS,
    "report-data",
    "signature",
    "freshness",
    "claimed-debug",
    "counter",
    "trusted-app",
    "security-version",
    "recipients",
)
"""All checks of an evidence collection, in their order; a raw quote has those of its platform only."""


class Check(NamedTuple):
    """One point of an appraisal: what was found, and the error if it is not acceptable."""

    point: str
    said: str | Callable[[], str]
    error: EvidenceError | None = None

    @property
    def found(self) -> str:
        """For people; only put into words when someone asks."""
        return self.said if isinstance(self.said, str) else self.said()


class Appraisal:
    """Appraises one piece of evidence once; what it learned stands in `platform`, `claims` and `freshness`."""

    platform: PlatformEvidence
    claims: Claims
    freshness: Freshness

    def __init__(
        self, policy: Policy, endorsements: Endorsements, published: Mapping[bytes, int], nonce: bytes | None, now: int
    ) -> None:
        self._policy = policy
        self._endorsements = endorsements
        self._published = published
        self._nonce = nonce
        self._now = now

    def of_evidence(self, evidence: bytes) -> Iterator[Check]:
        """The checks of an evidence collection, until one leaves nothing to look at behind it."""
        try:
            collection = decode_collection(evidence)
            kind = kind_of(collection.platform.media_type)
            if kind is None:
                raise _refused(
                    "untrusted-anchor",
                    f"this release knows no platform that makes {collection.platform.media_type}",
                    "upgrade the verifier, or do not use it",
                )
            endorsements = self._with_carried(collection, kind)
        except EvidenceError as error:
            yield Check("form", "not evidence this release understands", error)
            return
        yield Check("form", f"an evidence collection of the {KINDS[kind].title}")
        for check in self.of_quote(kind, collection.platform.value, endorsements):
            yield check
            if check.point == "platform" and check.error:
                return
        yield from self._of_claims(collection.eat)

    def of_quote(self, kind: str, quote: bytes, endorsements: Endorsements | None = None) -> Iterator[Check]:
        """The checks of a raw quote or report: the platform and its runtime, without a trusted application."""
        try:
            self.platform = platform = self._verify_quote(kind, quote, endorsements or self._endorsements)
        except EvidenceError as error:
            yield Check("platform", "not proven to be any platform", error)
            return
        yield Check("platform", lambda: _who(platform))
        yield self._check_class(platform)
        yield self._check_tcb(platform)
        yield self._check_debug(platform)
        yield self._check_runtime(platform)

    def _with_carried(self, collection: Collection, kind: str) -> Endorsements:
        item = collection.endorsements
        if item is None:
            return self._endorsements
        if not KINDS[kind].endorsement_types:
            raise EvidenceError(
                "malformed-evidence",
                f"the {KINDS[kind].title} has no endorsements, and it carries some",
                advice="do not use it; ask for it again",
            )
        carried = decode_carried(item.media_type, item.value, KINDS[kind].endorsement_types)
        return self._endorsements.also(carried)

    def _verify_quote(self, kind: str, quote: bytes, endorsements: Endorsements) -> PlatformEvidence:
        anchors = [anchor for anchor in self._policy.anchors if anchor.kind == kind]
        if not anchors:
            raise _refused(
                "untrusted-anchor",
                f"the policy has no trust anchor for the {KINDS[kind].title}",
                "name an anchor of that kind in the policy, if such platforms are to be accepted",
            )
        return KINDS[kind].verify(quote, endorsements, anchors, self._now)

    def _check_class(self, platform: PlatformEvidence) -> Check:
        found = platform.anchor.platform_class
        if found in self._policy.classes:
            return Check("class", found)
        error = _refused(
            "class-not-accepted",
            f"the platform is of class {found}",
            f'add "{found}" to `classes`, if that is good enough for these results',
        )
        return Check("class", found, error)

    def _check_tcb(self, platform: PlatformEvidence) -> Check:
        tcb = platform.tcb
        if tcb is None:
            return Check("tcb", "such platforms have no TCB status")
        found = f"{tcb.status}{' with ' if tcb.advisories else ''}{', '.join(tcb.advisories)}"
        objection = self._policy.tcb_objection(platform.anchor.kind, tcb, self._now)
        if objection is None:
            return Check("tcb", found)
        error = _refused(
            "tcb-not-accepted",
            f"the platform's TCB is {found}; {objection}",
            f"update the platform, or accept the status until a date under [[tcb.{platform.anchor.kind}]]",
        )
        return Check("tcb", found, error)

    def _check_debug(self, platform: PlatformEvidence) -> Check:
        if not platform.debug:
            return Check("debug", "the platform is not in debug mode")
        found = "the platform is in debug mode"
        if self._policy.debug:
            return Check("debug", found)
        return Check("debug", found, _refused("debug-platform", found, "use a production platform"))

    def _check_runtime(self, platform: PlatformEvidence) -> Check:
        kind = platform.anchor.kind

        def found() -> str:
            return ", ".join(f"{name} {_shown(value)}" for name, value in platform.runtime.items())

        differences = self._policy.runtime[kind].differences(platform.runtime)
        if not differences:
            return Check("runtime", found)
        error = _refused(
            "wrong-runtime",
            f"the measured runtime is no reference value: {'; '.join(differences)}",
            f"install the release the policy names, or add the measurement to `runtime.{kind}`",
        )
        return Check("runtime", found, error)

    def _of_claims(self, eat: bytes) -> Iterator[Check]:
        try:
            parsed = parse_eat(eat)
            wanted = report_data(parsed)
        except EvidenceError as error:
            yield Check("report-data", "there is no EAT to be about", error)
            return
        yield self._check_report_data(wanted)
        try:
            self.claims = claims = read_eat(parsed)
        except EvidenceError as error:
            yield Check("signature", "not claims of this instance", error)
            return
        yield Check("signature", lambda: f"claims of instance {cose.thumbprint(claims.signing_key).hex()}")
        yield self._check_freshness(claims)
        yield self._check_claimed_debug(claims)
        yield self._check_counter(claims)
        yield from self._check_trusted_app(claims)
        yield self._check_recipients(claims)

    def _check_report_data(self, wanted: bytes) -> Check:
        if hmac.compare_digest(wanted, self.platform.report_data):
            return Check("report-data", "the quote is about this EAT")
        error = _refused(
            "wrong-report-data",
            "the platform's quote is about another EAT",
            "do not use it; quote and claims were put together by someone else",
        )
        return Check("report-data", "the quote is not about this EAT", error)

    def _check_freshness(self, claims: Claims) -> Check:
        shown: Freshness = "unknown"
        if self._nonce is not None:
            if claims.nonce is None or not hmac.compare_digest(claims.nonce, self._nonce):
                error = _refused("wrong-nonce", "the evidence was not made for this nonce", "ask for evidence again")
                return Check("freshness", "made for another nonce", error)
            shown = "nonce"
        elif claims.nonce is not None and claims.nonce in self._published:
            shown = "beacon"
        self.freshness = shown
        if claims.nonce is not None and claims.nonce in self._published:
            age = self._now - self._published[claims.nonce]
            if not 0 <= age <= self._policy.maximum_age_seconds:
                error = _refused(
                    "evidence-too-old",
                    f"nonce or beacon is {age} s old, the policy allows {self._policy.maximum_age_seconds} s",
                    "ask for evidence again, or check the clock",
                )
                return Check("freshness", f"{age} s old", error)
        if FRESHNESS.index(shown) <= FRESHNESS.index(self._policy.freshness):
            return Check("freshness", shown)
        error = _refused(
            "freshness-unknown" if shown == "unknown" else "not-fresh-enough",
            f"the freshness of the evidence is {shown}, the policy asks for {self._policy.freshness}",
            'ask with a nonce, publish beacons, or name `freshness = "unknown"` in the policy',
        )
        return Check("freshness", shown, error)

    def _check_claimed_debug(self, claims: Claims) -> Check:
        found = f"it says debug {'on' if claims.identity.debug else 'off'}"
        if self.platform.debug and not claims.identity.debug:
            error = _refused("debug-hidden", "the platform is in debug mode and the claims deny it", "do not use it")
            return Check("claimed-debug", found, error)
        if claims.identity.debug and not self._policy.debug:
            error = _refused(
                "debug-trusted-app", "the trusted application can be debugged", "use one signed without debug"
            )
            return Check("claimed-debug", found, error)
        return Check("claimed-debug", found)

    def _check_counter(self, claims: Claims) -> Check:
        source, platform_class = claims.epoch.source, self.platform.anchor.platform_class
        if source != "emulated" or platform_class == "emulated":
            return Check("counter", source)
        error = _refused(
            "emulated-counter",
            f"a platform of class {platform_class} claims a counter that is only emulated",
            "do not use it; the enclave was not started on the hardware it runs on",
        )
        return Check("counter", source, error)

    def _check_trusted_app(self, claims: Claims) -> Iterator[Check]:
        identity = claims.identity

        def found() -> str:
            signer, unique = identity.signer_id.hex(), identity.unique_id.hex()
            return f"product {identity.product_id} of signer {signer}, unique_id {unique}"

        rules = [rule for rule in self._policy.trusted_apps if rule.names(identity)]
        if not rules:
            error = _refused(
                "unknown-trusted-app",
                f"the policy does not name {found()}",
                "add it to `trusted_apps`, if it is yours",
            )
            yield Check("trusted-app", found, error)
            return
        yield Check("trusted-app", found)
        floor = min(rule.minimum_security_version for rule in rules)
        version = f"{identity.security_version}, the policy asks for {floor} or more"
        if identity.security_version < floor:
            error = _refused(
                "security-version-too-low",
                f"security version {identity.security_version} is below {floor}",
                "upgrade the trusted application on the device",
            )
            yield Check("security-version", version, error)
            return
        yield Check("security-version", version)

    def _check_recipients(self, claims: Claims) -> Check:
        def found() -> str:
            listed = (f"{output}: {version}" for output, (version, _) in sorted(claims.recipients.items()))
            return ", ".join(listed) or "none"

        for output, minimum in self._policy.minimum_recipients.items():
            version, _ = claims.recipients.get(output, (minimum, b""))
            if version < minimum:
                error = _refused(
                    "recipients-too-old",
                    f"output {output} is sealed to recipient set {version}, the policy asks for {minimum}",
                    "deploy the current recipient set to the device",
                )
                return Check("recipients", found, error)
        return Check("recipients", found)


def _who(platform: PlatformEvidence) -> str:
    anchor = platform.anchor
    root = "a TEST root" if anchor.test else anchor.name or f"the pinned key {anchor.fingerprint.hex()}"
    return f"{KINDS[anchor.kind].title} {platform.platform_instance.hex()}, vouched for by {root}"


def _shown(value: bytes | int) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _refused(code: str, what: str, advice: str) -> EvidenceError:
    return EvidenceError(code, what, advice=advice)
