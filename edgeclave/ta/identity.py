"""Who a trusted application is (PROTOCOL section 2, names from Open Enclave's oesign).

All five are statements of the runtime that loaded the package; a verifier appraises that runtime before it reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeclave.errors import PackageError


@dataclass(frozen=True)
class Identity:
    """unique_id and signer_id are SHA-256 digests (32 bytes); product_id and security_version are 16-bit."""

    unique_id: bytes
    signer_id: bytes
    product_id: int
    security_version: int
    debug: bool

    def to_map(self) -> dict[str, Any]:
        """As it stands in evidence, result headers and open records."""
        return {
            "unique_id": self.unique_id,
            "signer_id": self.signer_id,
            "product_id": self.product_id,
            "security_version": self.security_version,
            "debug": self.debug,
        }

    @classmethod
    def from_map(cls, value: object) -> Identity:
        """Raises PackageError `malformed-identity` unless every field is there, and nothing else."""
        if not isinstance(value, dict) or value.keys() != _FIELDS:
            raise PackageError("malformed-identity", "an identity must have exactly its five fields")
        identity = cls(**value)
        digests = (identity.unique_id, identity.signer_id)
        numbers = (identity.product_id, identity.security_version)
        if (
            not all(isinstance(digest, bytes) and len(digest) == 32 for digest in digests)
            or not all(type(number) is int and 0 <= number <= 0xFFFF for number in numbers)
            or not isinstance(identity.debug, bool)
        ):
            raise PackageError("malformed-identity", "an identity field has the wrong type or size")
        return identity


_FIELDS = {"unique_id", "signer_id", "product_id", "security_version", "debug"}
