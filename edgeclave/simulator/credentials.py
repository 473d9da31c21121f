"""How a device or module proves itself to the hub: a shared access signature or a certificate."""

from __future__ import annotations

import base64
import re
import secrets
from dataclasses import dataclass

from edgeclave.simulator.hub_errors import bad_request

KEY_BYTES = 32
SAS, SELF_SIGNED, AUTHORITY = "sas", "selfSigned", "certificateAuthority"  # how an identity proves itself
_THUMBPRINT = re.compile(r"[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}")  # SHA-1 or SHA-256 of the certificate


@dataclass(frozen=True)
class Credentials:
    """How an identity proves itself; what is None or empty is made or kept.

    Args:
        kind: `sas`, `selfSigned` (a certificate by its thumbprint) or `certificateAuthority`.
        primary_key: base64 of 16 to 64 bytes, as is the secondary key.
        primary_thumbprint: SHA-1 or SHA-256 of the certificate, hexadecimal.
    """

    kind: str = SAS
    primary_key: str | None = None
    secondary_key: str | None = None
    primary_thumbprint: str = ""
    secondary_thumbprint: str = ""

    def check(self) -> None:
        """Raises HubError 400."""
        if self.kind not in (SAS, SELF_SIGNED, AUTHORITY):
            raise bad_request(f"authentication type {self.kind[:40]!r} is not known", where="authentication.type")
        for thumbprint in (self.primary_thumbprint, self.secondary_thumbprint):
            if thumbprint and not _THUMBPRINT.fullmatch(thumbprint):
                raise bad_request("a thumbprint is 40 or 64 hexadecimal digits", where="authentication.x509Thumbprint")
        if self.kind == SELF_SIGNED and not (self.primary_thumbprint or self.secondary_thumbprint):
            raise bad_request("selfSigned needs a thumbprint", where="authentication.x509Thumbprint")


NEW_KEYS = Credentials()


def usable_key(given: str | None) -> str:
    """The key, made where none is given. Raises HubError 400."""
    if not given:
        return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
    try:
        decoded = base64.b64decode(given, validate=True)
    except ValueError:
        decoded = b""
    if not 16 <= len(decoded) <= 64:
        raise bad_request("a symmetric key must be base64 of 16 to 64 bytes")
    return given
