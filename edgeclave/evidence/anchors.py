"""What a verifier knows about platforms: trust anchors, classes, and what verified platform evidence says.

The class of a platform comes from the trust anchor that verified, never from a media type or a claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edgeclave import cose

PlatformClass = Literal["sgx", "optee-device", "tdx", "sev-snp", "shared-guest", "boot-attested", "emulated"]
PLATFORM_CLASSES: tuple[str, ...] = get_args(PlatformClass)
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
Measurement = Mapping[str, bytes | int]
"""What was measured, by the name the vendor gives it: registers as bytes, security versions and ids as integers."""


@dataclass(frozen=True)
class Anchor:
    """Where trust in one kind of evidence begins: a public key, lying in one class.

    Args:
        kind: the kind of evidence it vouches for, by its name in `kinds.KINDS`.
        platform_class: what a platform that verifies under it is called.
        key: the key, or only the SHA-256 of its SubjectPublicKeyInfo where the key comes with the evidence.
        device: the IoT Hub device id bound to a pinned key at enrolment; None for roots.
        name: the name of a built-in vendor root (`intel-sgx-root`), under which many platforms verify.
        test: a root of stand-in hardware. Its class can only be `emulated`, whatever its evidence imitates.
    """

    kind: str
    platform_class: PlatformClass
    key: PublicKey | bytes
    device: str | None = None
    name: str = ""
    test: bool = False

    @property
    def is_root(self) -> bool:
        """Whether many platforms verify under it, so that it cannot tell one device from another."""
        return bool(self.name) or self.test

    @cached_property
    def fingerprint(self) -> bytes:
        """SHA-256 of the key's SubjectPublicKeyInfo, 32 bytes."""
        return self.key if isinstance(self.key, bytes) else key_fingerprint(self.key)

    @cached_property
    def thumbprint(self) -> bytes:
        """RFC 9679 thumbprint of a P-256 key, 32 bytes."""
        assert isinstance(self.key, ec.EllipticCurvePublicKey)
        return cose.thumbprint(self.key)


@dataclass(frozen=True)
class Tcb:
    """What the vendor says of the platform's security version: a status in its own word, and open advisories."""

    status: str
    advisories: tuple[str, ...] = ()


UP_TO_DATE = "UpToDate"


@dataclass(frozen=True)
class PlatformEvidence:
    """A quote whose signatures verified: what the platform itself says, before any claim is read.

    platform_instance tells one platform from another; runtime is what is compared with the reference values;
    report_data are the 64 bytes that bind the EAT, with zeros behind what a TPM carries; debug is the platform's own
    flag; tcb is None where the vendor gives no status; revocation_checked is false where the vendor's list of what it
    revoked was not at hand; details are for people and logs, and nothing is decided by them.
    """

    anchor: Anchor
    platform_instance: bytes
    runtime: Measurement
    report_data: bytes
    debug: bool
    tcb: Tcb | None = None
    revocation_checked: bool = True
    details: Mapping[str, str | int] = field(default_factory=dict)


def key_fingerprint(key: PublicKey) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo, 32 bytes."""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return cose.sha256(spki)
