"""An emulated platform with one instance, and the policy of a reader that accepts it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave.cose import generate_key, thumbprint
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.collection import Collection, encode_collection
from edgeclave.evidence.eat import Claims, Epoch, make_eat, report_data
from edgeclave.evidence.emulator import make_quote, quote_item
from edgeclave.evidence.policy import Policy, TrustedApp
from edgeclave.evidence.reference import Reference
from edgeclave.evidence.runtime import runtime_digest
from edgeclave.ta.identity import Identity

UNIQUE_ID, SIGNER_ID, RECIPIENTS = b"u" * 32, b"s" * 32, b"r" * 32
NONCE = b"nonce-of-16-byte"
NOW = 1_700_000_000


@dataclass
class Platform:
    """Makes evidence; a test changes one thing about it and nothing else."""

    attestation_key: ec.EllipticCurvePrivateKey = field(default_factory=generate_key)
    signing_key: ec.EllipticCurvePrivateKey = field(default_factory=generate_key)
    channel_key: ec.EllipticCurvePrivateKey = field(default_factory=generate_key)

    def claims(self, **changes: object) -> Claims:
        claims = {
            "nonce": NONCE,
            "signing_key": self.signing_key.public_key(),
            "channel_key": self.channel_key.public_key(),
            "identity": Identity(UNIQUE_ID, SIGNER_ID, 7, 3, False),
            "epoch": Epoch(2, "none", b"p" * 32),
            "storage_level": "consistent",
            "recipients": {"anomalies": (1, RECIPIENTS), "summary": (4, RECIPIENTS)},
            "host_time": 1_700_000_000_123,
        }
        return Claims(**{**claims, **changes})

    def eat(self, **changes: object) -> bytes:
        return make_eat(self.claims(**changes), self.signing_key)

    def quote(self, eat: bytes, *, runtime: bytes | None = None, debug: bool = False) -> bytes:
        return make_quote(self.attestation_key, report_data(eat), runtime or runtime_digest(), debug)

    def evidence(self, *, runtime: bytes | None = None, platform_debug: bool = False, **changes: object) -> bytes:
        eat = self.eat(**changes)
        return encode_collection(Collection(eat, quote_item(self.quote(eat, runtime=runtime, debug=platform_debug))))

    def policy(self, **changes: object) -> Policy:
        policy = {
            "anchors": (Anchor("emulator", "emulated", self.attestation_key.public_key(), "edge01"),),
            "runtime": {"emulator": Reference({"digest": runtime_digest()})},
            "classes": frozenset({"emulated"}),
            "trusted_apps": (TrustedApp(SIGNER_ID, 7, minimum_security_version=2),),
            "freshness": "nonce",
        }
        return Policy(**{**policy, **changes})

    @property
    def platform_instance(self) -> bytes:
        return thumbprint(self.attestation_key.public_key())


@pytest.fixture(scope="session")
def platform() -> Platform:
    return Platform()


@pytest.fixture(scope="session")
def other_platform() -> Platform:
    return Platform()
