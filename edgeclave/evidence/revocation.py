"""Why a certificate was revoked: its key may be a thief's, or it was only replaced (RFC 5280 section 5.3.1).

For new evidence it is the same, and the platform is refused. For evidence from before the revocation it is not: a thief
can sign anything of any date, while what a key signed that nobody else ever had stays what it was.
"""

from __future__ import annotations

from cryptography import x509

from edgeclave.errors import EvidenceError
from edgeclave.evidence.endorsements import day

_NO_THEFT = {
    x509.ReasonFlags.superseded,
    x509.ReasonFlags.cessation_of_operation,
    x509.ReasonFlags.affiliation_changed,
}
"""Anything else, and no reason at all, may be a theft."""


class RevokedError(EvidenceError):
    """`platform-revoked`, with what the revocation list says of it.

    Args:
        who: whose certificate, as people call it.
        reason: as RFC 5280 writes it; `unspecified` where the list gives none.
        at: since when, in s since 1970.
        stolen: whether the key may be in other hands.
    """

    def __init__(self, who: str, reason: str, at: int, *, stolen: bool) -> None:
        super().__init__(
            "platform-revoked",
            f"{who} was revoked on {day(at)}, for the reason {reason}",
            advice="do not use it; look for the vendor's bulletin on what happened",
        )
        self.args = (who, reason, at, stolen)
        self.reason = reason
        self.at = at
        self.stolen = stolen


def find_revocation(
    revoked: x509.CertificateRevocationList, certificate: x509.Certificate, who: str
) -> RevokedError | None:
    """The entry of a certificate in a list of its issuer that verified, None if it has none."""
    entry = revoked.get_revoked_certificate_by_serial_number(certificate.serial_number)
    if entry is None:
        return None
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except (x509.ExtensionNotFound, ValueError):
        reason = x509.ReasonFlags.unspecified
    at = int(entry.revocation_date_utc.timestamp())
    return RevokedError(who, reason.value, at, stolen=reason not in _NO_THEFT)
