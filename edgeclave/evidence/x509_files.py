"""Certificates and revocation lists as files hold them: any number, in PEM with anything around it, or in DER.

What is broken in PEM is passed over. DER behind one another must be whole to its last byte: otherwise it was cut off
or is something else, and holds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from cryptography import x509

from edgeclave.evidence.x509_errors import UNREADABLE, Signed

MAX_IN_FILE = 256  # the VCEKs of some racks
_PEM_BEGIN = b"-----BEGIN "
_SEQUENCE = 0x30
_MAX_SIZE_BYTES = 3  # 16 MiB: more than any file that is read


def read_signed(data: bytes) -> list[Signed]:
    """Everything that can be read, unverified."""
    if _PEM_BEGIN in data:
        parts = data.split(_PEM_BEGIN)[1:]
        found = [_pem(_PEM_BEGIN + part) for part in parts[:MAX_IN_FILE]]
    else:
        found = [_der(part) for part in _sequences(data)]
    return [each for each in found if each is not None]


def _pem(part: bytes) -> Signed | None:
    # Empty lines between the others come of ends of lines that were converted twice.
    tight = b"\n".join(line for line in part.splitlines() if line.strip())
    for load in (x509.load_pem_x509_certificate, x509.load_pem_x509_crl):
        try:
            return load(tight)
        except UNREADABLE:
            continue
    return None


def _der(part: bytes) -> Signed | None:
    for load in (x509.load_der_x509_certificate, x509.load_der_x509_crl):
        try:
            return load(part)
        except UNREADABLE:
            continue
    return None


def _sequences(data: bytes) -> list[bytes]:
    """The DER sequences that stand behind one another up to the end; none if anything else does."""
    ends = list(_ends(data))
    if not ends or ends[-1] != len(data) or len(ends) > MAX_IN_FILE:
        return []
    return [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def _ends(data: bytes) -> Iterator[int]:
    end = 0
    while data[end : end + 1] == bytes([_SEQUENCE]) and end + 2 <= len(data):
        size, end = data[end + 1], end + 2
        if size >> 7:
            count = size & 0x7F
            if not 1 <= count <= _MAX_SIZE_BYTES:
                return
            size, end = int.from_bytes(data[end : end + count], "big"), end + count
        end += size
        yield end
