"""AMD's endorsements as files hold them: certificates and revocation lists, in PEM, DER or the certificate table.

The certificate table is what an extended guest request returns (AMD document 56421, GHCB, "struct cert_table") and what
configfs-tsm gives as `auxblob`. Nothing here verifies anything; `amd_certificates` does.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from uuid import UUID

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID

from edgeclave.errors import EvidenceError
from edgeclave.evidence import amd_extensions
from edgeclave.evidence.endorsements import MAX_ENDORSEMENT_BYTES, Endorsement, EndorsementType
from edgeclave.evidence.sev_snp_report import PRODUCTS, Report
from edgeclave.evidence.x509_errors import UNREADABLE, Signed, der_in_one_form
from edgeclave.evidence.x509_files import read_signed

# AMD gives every VCEK and VLEK the serial number 0, about which cryptography warns at each one.
warnings.filterwarnings(
    "ignore", message="Parsed a serial number which wasn't positive", category=CryptographyDeprecationWarning
)

MAX_TABLE_ENTRIES = 16  # AMD defines six
MAX_REMEMBERED = (
    32  # files of each type, so that the chain of a product is parsed once; at most 64 KiB each in evidence
)
_TABLE_ENTRY = struct.Struct("<16sII")
_TABLE_KEYS = {
    UUID(text).bytes
    for text in (
        "63da758d-e664-4564-adc5-f4b93be8accd",  # VCEK
        "a8074bc2-a25a-483e-aae6-39c045a0b8a1",  # VLEK
        "4ab7b379-bbac-4fe4-a02f-05aef327c782",  # ASK
        "c0b406a4-a803-4952-9743-3fb6014cd0ae",  # ARK
        "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",  # CRL
    )
}


def common_name(name: x509.Name) -> str:
    """The common name, empty if there is not exactly one."""
    names = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def key_subject(report: Report) -> str:
    """How endorsements name the key that signed a report: its chip and TCB, or for a VLEK only the TCB."""
    if report.signing_key == "VLEK":
        return f"vlek-{report.reported_tcb.hex()}"
    return _chip_subject(report.chip_id, report.reported_tcb)


def _chip_subject(chip_id: bytes, tcb: bytes) -> str:
    return f"{chip_id.rstrip(bytes(1)).hex()}-{tcb.hex()}"


def _endorsement_key(certificate: x509.Certificate) -> str | None:
    name = common_name(certificate.subject)
    if name not in ("SEV-VCEK", "SEV-VLEK"):
        return None
    said = amd_extensions.read(certificate)
    return f"vlek-{said.tcb.hex()}" if said.chip_id is None else _chip_subject(said.chip_id, said.tcb)


def _signing_key(certificate: x509.Certificate) -> str | None:
    name = common_name(certificate.subject)
    of = name.removeprefix("SEV-").removeprefix("VLEK-")
    certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)  # what finds its root
    return name if name.startswith("SEV-") and of in PRODUCTS else None


def _root(certificate: x509.Certificate) -> str | None:
    name = common_name(certificate.subject)
    certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return name if name.startswith("ARK-") and name.removeprefix("ARK-") in PRODUCTS else None


def _certificates(
    subject: Callable[[x509.Certificate], str | None], kind: str
) -> Callable[[bytes], tuple[Endorsement, ...]]:
    @lru_cache(maxsize=MAX_REMEMBERED)
    def read(data: bytes) -> tuple[Endorsement, ...]:
        found = []
        for one in _in_file(data):
            if not isinstance(one, x509.Certificate):
                continue
            try:
                named, der = subject(one), der_in_one_form(one)
                begin, end = int(one.not_valid_before_utc.timestamp()), int(one.not_valid_after_utc.timestamp())
            except (EvidenceError, *UNREADABLE):
                continue
            if named is not None:
                found.append(Endorsement(kind, named, der, begin, end))
        return tuple(found)

    return read


def _revocation_lists(data: bytes) -> list[Endorsement]:
    found = []
    for one in _in_file(data):
        if isinstance(one, x509.Certificate):
            continue
        try:
            issuer, der = common_name(one.issuer), der_in_one_form(one)
            begin, end = one.last_update_utc, one.next_update_utc
        except UNREADABLE:
            continue
        if end is not None and issuer.startswith("ARK-") and issuer.removeprefix("ARK-") in PRODUCTS:
            times = int(begin.timestamp()), int(end.timestamp())
            found.append(Endorsement("amd-revocation-list", issuer, der, *times))
    return found


ENDORSEMENT_KEY = EndorsementType(
    "amd-endorsement-key", "AMD VCEK or VLEK", _certificates(_endorsement_key, "amd-endorsement-key")
)
SIGNING_KEY = EndorsementType("amd-signing-key", "AMD ASK or ASVK", _certificates(_signing_key, "amd-signing-key"))
ROOT = EndorsementType("amd-root", "AMD ARK", _certificates(_root, "amd-root"))
REVOCATION_LIST = EndorsementType("amd-revocation-list", "AMD revocation list", _revocation_lists)
TYPES = (ENDORSEMENT_KEY, SIGNING_KEY, ROOT, REVOCATION_LIST)


def _in_file(data: bytes) -> Iterator[Signed]:
    if len(data) > MAX_ENDORSEMENT_BYTES:
        return
    for part in _table(data) or (data,):
        yield from read_signed(part)


def _table(data: bytes) -> list[bytes]:
    """The parts of a certificate table; empty if it is none, or reaches beyond its own end."""
    parts: list[bytes] = []
    for number in range(MAX_TABLE_ENTRIES):
        entry = data[number * _TABLE_ENTRY.size :][: _TABLE_ENTRY.size]
        if len(entry) < _TABLE_ENTRY.size:
            return []
        key, offset, length = _TABLE_ENTRY.unpack(entry)
        if not any(entry):
            return parts
        if (number == 0 and key not in _TABLE_KEYS) or offset + length > len(data):
            return []
        if key in _TABLE_KEYS:
            parts.append(data[offset : offset + length])
    return []
