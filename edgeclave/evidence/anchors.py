"""What a verifier knows about platforms: trust anchors, classes, and what verified platform evidence says.

The class of a platform comes from the trust anchor that verified, never from a media type or a claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave import cose

PlatformClass = Literal["sgx", "optee-device", "tdx", "sev-snp", "shared-guest", "boot-attested", "emulated"]
PLATFORM_CLASSES: tuple[str, ...] = get_args(PlatformClass)


@dataclass(frozen=True)
class Anchor:
    """A pinned key of one kind of evidence, lying in one class.

    `device` is the IoT Hub device id bound to it at enrolment, None where one anchor vouches for many devices.
    """

    kind: str
    platform_class: PlatformClass
    key: ec.EllipticCurvePublicKey
    device: str | None = None

    @cached_property
    def thumbprint(self) -> bytes:
        """RFC 9679 thumbprint of the key."""
        return cose.thumbprint(self.key)


@dataclass(frozen=True)
class PlatformEvidence:
    """A quote whose signatures verified: what the platform itself says, before any claim is read.

    platform_instance tells one platform from another; runtime is what is compared with the reference values;
    report_data are the 64 bytes that bind the EAT; debug is the platform's own flag.
    """

    anchor: Anchor
    platform_instance: bytes
    runtime: bytes
    report_data: bytes
    debug: bool
