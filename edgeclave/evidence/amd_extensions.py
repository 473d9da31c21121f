"""What AMD writes into a VCEK or VLEK (AMD document 57230, "VCEK and VLEK certificate extensions").

Each value is one DER INTEGER, IA5String or the plain bytes of the chip id, in exactly one form.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from edgeclave.errors import EvidenceError
from edgeclave.evidence.sev_snp_report import CHIP_ID_BYTES, PRODUCTS, TURIN_CHIP_ID_BYTES, Product, Tcb, write_tcb
from edgeclave.evidence.x509_errors import UNREADABLE

_ARC = "1.3.6.1.4.1.3704.1."
PRODUCT_NAME, CHIP_ID, PROVIDER = _ARC + "2", _ARC + "4", _ARC + "5"
BOOTLOADER, TEE, SNP, MICROCODE, FMC = _ARC + "3.1", _ARC + "3.2", _ARC + "3.3", _ARC + "3.8", _ARC + "3.9"
_INTEGER, _OCTET_STRING, _IA5_STRING = 0x02, 0x04, 0x16
_MAX_SHORT_LENGTH = 0x7F  # of one byte


@dataclass(frozen=True)
class Extensions:
    """`tcb` is as a report has it, 8 bytes; a VCEK has a chip id (64 bytes, 8 on Turin), a VLEK a provider."""

    product: Product
    tcb: bytes
    chip_id: bytes | None
    provider: str | None


def read(certificate: x509.Certificate) -> Extensions:
    """Raises EvidenceError `malformed-endorsement`."""
    try:
        found = {
            one.oid.dotted_string: one.value.value
            for one in certificate.extensions
            if isinstance(one.value, x509.UnrecognizedExtension)
        }
    except UNREADABLE as error:
        raise malformed(str(error)) from error
    name = _text(found, PRODUCT_NAME).partition("-")[0]
    product = next((known for known in PRODUCTS if known == name), None)
    if product is None:
        raise malformed(f"unknown product {name!r}")
    tcb = Tcb(
        bootloader=_integer(found, BOOTLOADER),
        tee=_integer(found, TEE),
        snp=_integer(found, SNP),
        microcode=_integer(found, MICROCODE),
        fmc=_integer(found, FMC) if product == "Turin" else None,
    )
    chip_id = _chip_id(found, product) if CHIP_ID in found else None
    provider = _text(found, PROVIDER) if PROVIDER in found else None
    if (chip_id is None) == (provider is None):
        raise malformed("it must name either a chip or a provider")
    return Extensions(product, write_tcb(tcb, product), chip_id, provider)


def malformed(what: str) -> EvidenceError:
    return EvidenceError(
        "malformed-endorsement", f"not a certificate of AMD: {what}", advice="import the endorsements again"
    )


def _chip_id(found: dict[str, bytes], product: Product) -> bytes:
    value, size = found[CHIP_ID], TURIN_CHIP_ID_BYTES if product == "Turin" else CHIP_ID_BYTES
    plain = value[2:] if value[:2] == bytes([_OCTET_STRING, size]) and len(value) == size + 2 else value
    if len(plain) != size:
        raise malformed(f"a chip id of {len(plain)} bytes on {product}")
    return plain


def _integer(found: dict[str, bytes], oid: str) -> int:
    """From 0 to 255."""
    value = found.get(oid, b"")
    number = int.from_bytes(value[2:], "big")
    if number > 0xFF or value != bytes([_INTEGER, 2, 0, number] if number > 0x7F else [_INTEGER, 1, number]):
        raise malformed(f"extension {oid} is missing or no security version")
    return number


def _text(found: dict[str, bytes], oid: str) -> str:
    """Less than 128 characters."""
    value = found.get(oid, b"")
    text = value[2:]
    if len(text) > _MAX_SHORT_LENGTH or value[:2] != bytes([_IA5_STRING, len(text)]) or not text.isascii():
        raise malformed(f"extension {oid} is missing or no text")
    return text.decode("ascii")
