"""What the service does with one request, without HTTP: bytes in, a signed token out, or an error with its reason."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgeclave.cloud.verifier_service.keyring import Keyring
from edgeclave.cloud.verifier_service.nonces import Nonces
from edgeclave.errors import EvidenceError
from edgeclave.evidence.anchors import PlatformEvidence
from edgeclave.evidence.ear import make_ear, make_platform_ear
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.kinds import detect
from edgeclave.evidence.maa import make_token
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.verifier import Verifier

TOKEN_SECONDS = 3600
"""How long a relying party may use a token; revocations reach it no later."""


class Appraiser:
    """One policy, its endorsements and the keys that sign.

    Args:
        policy_text: the bytes of the policy file; their SHA-256 stands in tokens.
        as_of: appraise as of this time (s since 1970) instead of now; each token then says so.
        clock: s since 1970.
    """

    def __init__(
        self,
        policy: Policy,
        policy_text: bytes,
        endorsements: Endorsements,
        keyring: Keyring,
        *,
        as_of: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.keyring = keyring
        self._policy = policy
        self._policy_text = policy_text
        self._endorsements = endorsements
        self._nonces = Nonces(keyring.nonce_secret)
        self._as_of = as_of
        self._clock = clock

    def issue_nonce(self) -> tuple[bytes, int]:
        """A nonce, and for how many seconds the policy accepts evidence that carries it."""
        return self._nonces.issue(self._time()), self._policy.maximum_age_seconds

    def appraise_evidence(self, evidence: bytes, nonce: bytes | None) -> str:
        """An EAR about a trusted application.

        Raises:
            EvidenceError: as `Verifier.verify`, and `unknown-nonce`.
        """
        published = {} if nonce is None else {nonce: self._issued_at(nonce)}
        verifier = Verifier(self._policy, published=published, endorsements=self._endorsements)
        result = verifier.verify(evidence, nonce=nonce, now=self._time())
        return make_ear(
            self.keyring.signer(self._now()),
            result,
            nonce=nonce,
            now=self._now(),
            lifetime_seconds=TOKEN_SECONDS,
            as_of=self._as_of,
        )

    def appraise_quote(self, data: bytes, nonce: bytes | None) -> str:
        """An EAR about a platform and its runtime only, from a raw quote or report whose report data are the nonce.

        Raises:
            EvidenceError: as `Verifier.verify_quote`, and `malformed-quote`, `unknown-nonce`, `wrong-nonce`,
                `evidence-too-old`.
        """
        detected = detect(data)
        if detected is None:
            raise EvidenceError(
                "malformed-quote",
                "not a quote or report of a platform this release knows",
                advice="send it as it is, in base64url",
            )
        if nonce is not None:
            age = self._time() - self._issued_at(nonce)
            if not 0 <= age <= self._policy.maximum_age_seconds:
                raise EvidenceError("evidence-too-old", f"the nonce is {age} s old", advice="ask for a new one")
        platform = self._verify_quote(*detected)
        if nonce is not None and platform.report_data != nonce.ljust(len(platform.report_data), b"\0"):
            raise EvidenceError("wrong-nonce", "the report data is not the nonce and zeros", advice="ask for it again")
        return make_platform_ear(
            self.keyring.signer(self._now()),
            platform,
            nonce=nonce,
            now=self._now(),
            lifetime_seconds=TOKEN_SECONDS,
            as_of=self._as_of,
        )

    def attest_sgx(self, quote: bytes, runtime_data: bytes | None) -> str:
        """A token of the form of Microsoft Azure Attestation.

        Raises:
            EvidenceError: as `Verifier.verify_quote` and `make_token`.
        """
        platform = self._verify_quote("sgx", quote)
        return make_token(
            self.keyring.signer(self._now()),
            platform,
            policy=self._policy_text,
            now=self._now(),
            lifetime_seconds=TOKEN_SECONDS,
            runtime_data=runtime_data,
            as_of=self._as_of,
        )

    def _verify_quote(self, kind: str, quote: bytes) -> PlatformEvidence:
        return Verifier(self._policy, endorsements=self._endorsements).verify_quote(kind, quote, now=self._time())

    def _issued_at(self, nonce: bytes) -> int:
        issued_at = self._nonces.issued_at(nonce)
        if issued_at is None:
            raise EvidenceError("unknown-nonce", "this verifier did not issue the nonce", advice="ask it for one")
        return issued_at

    def _time(self) -> int:
        """Of the appraisal."""
        return self._now() if self._as_of is None else self._as_of

    def _now(self) -> int:
        return int(self._clock())
