"""A TPM 2.0 quote, byte by byte, and its signature.

Source: TCG TPM 2.0 Library Part 2, structures TPMS_ATTEST, TPMS_QUOTE_INFO, TPML_PCR_SELECTION and TPMT_SIGNATURE.
Big-endian. Nothing here says whose key it was.

>>> parse_attest(b"no TPM made this")
Traceback (most recent call last):
edgeclave.errors.EvidenceError: not a TPM quote: it does not begin as a quote does [malformed-quote]; ...
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from edgeclave.errors import EvidenceError
from edgeclave.evidence.anchors import PublicKey

QUOTE_HEAD = bytes.fromhex("ff5443478018")  # TPM_GENERATED_VALUE, TPM_ST_ATTEST_QUOTE
RSASSA, RSAPSS, ECDSA = 0x0014, 0x0016, 0x0018
SHA256 = 0x000B
PCRS = 24
PCR_BYTES = 32  # of the SHA-256 bank, the only one that is read
MAX_ATTEST_BYTES = 1024  # TPM2B_ATTEST of the reference implementation
MAX_SIGNATURE_BYTES = 1024  # RSA-4096 takes 518
MAX_EXTRA_DATA_BYTES = 64  # a digest and its zeros; the longest a TPM takes is 66
MAX_NAME_BYTES = 66  # of a key: algorithm and SHA-512
MAX_BANKS = 16
MAX_SELECT_BYTES = 4
MIN_RSA_BITS = 2048
_HASHES: dict[int, hashes.HashAlgorithm] = {SHA256: hashes.SHA256(), 0x000C: hashes.SHA384(), 0x000D: hashes.SHA512()}


@dataclass(frozen=True)
class Attest:
    """TPMS_ATTEST of a quote. `clock` is in ms; `pcrs` are those selected, of the SHA-256 bank, in ascending order.

    Clock, counts and firmware are obfuscated under an attestation key of the owner hierarchy (Part 1, section 36.7).
    """

    qualified_signer: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    pcrs: tuple[int, ...]
    pcr_digest: bytes


def parse_attest(data: bytes) -> Attest:
    """Raises EvidenceError `malformed-quote`."""
    if not data.startswith(QUOTE_HEAD):
        raise malformed("it does not begin as a quote does")
    if len(data) > MAX_ATTEST_BYTES:
        raise malformed(f"{len(data)} bytes is over the limit of {MAX_ATTEST_BYTES}")
    reader = _Reader(data[len(QUOTE_HEAD) :])
    qualified_signer = reader.sized(MAX_NAME_BYTES)
    extra_data = reader.sized(MAX_EXTRA_DATA_BYTES)
    clock, resets, restarts, safe, firmware = struct.unpack(">QIIBQ", reader.take(25))
    if safe > 1:
        raise malformed("a flag is neither yes nor no")
    pcrs = _selection(reader)
    pcr_digest = reader.sized(64)
    reader.end()
    return Attest(qualified_signer, extra_data, clock, resets, restarts, bool(safe), firmware, pcrs, pcr_digest)


def verify_signature(attest: bytes, signature: bytes, key: PublicKey) -> hashes.HashAlgorithm:
    """Checks a TPMT_SIGNATURE over a TPMS_ATTEST; returns the hash, which is also that of the PCR digest.

    Raises:
        EvidenceError: `malformed-quote`, `bad-quote-signature`.
    """
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise malformed(f"a signature of {len(signature)} bytes is over the limit of {MAX_SIGNATURE_BYTES}")
    reader = _Reader(signature)
    scheme, algorithm = struct.unpack(">HH", reader.take(4))
    used = _HASHES.get(algorithm)
    if used is None:
        raise malformed(f"hash algorithm {algorithm:#06x} is none of SHA-256, SHA-384 and SHA-512")
    first = reader.sized(512)
    second = reader.sized(66) if scheme == ECDSA else b""
    reader.end()
    try:
        if scheme == ECDSA and isinstance(key, ec.EllipticCurvePublicKey):
            der = encode_dss_signature(int.from_bytes(first, "big"), int.from_bytes(second, "big"))
            key.verify(der, attest, ec.ECDSA(used))
            return used
        if scheme in (RSASSA, RSAPSS) and isinstance(key, rsa.RSAPublicKey):
            pss = padding.PSS(padding.MGF1(used), padding.PSS.AUTO)  # the TPM chooses the length of the salt
            key.verify(first, attest, padding.PKCS1v15() if scheme == RSASSA else pss, used)
            return used
    except (InvalidSignature, ValueError) as error:
        raise EvidenceError(
            "bad-quote-signature",
            "the quote is not signed by the attestation key",
            advice="do not use it; it was altered, or is of another TPM",
        ) from error
    raise malformed(f"signature scheme {scheme:#06x} does not fit the attestation key")


def check_pcrs(attest: Attest, pcrs: Mapping[int, bytes], used: hashes.HashAlgorithm) -> None:
    """That the values are those that were quoted: exactly the selected ones, with the quoted digest.

    Raises:
        EvidenceError: `malformed-quote`, `wrong-pcr-digest`.
    """
    if sorted(pcrs) != list(attest.pcrs) or any(len(value) != PCR_BYTES for value in pcrs.values()):
        raise malformed(f"it is about PCRs {list(attest.pcrs)}, and values of {sorted(pcrs)} came with it")
    digest = hashlib.new(used.name, b"".join(pcrs[index] for index in attest.pcrs)).digest()
    if not hmac.compare_digest(digest, attest.pcr_digest):
        raise EvidenceError(
            "wrong-pcr-digest",
            "the PCR values are not those that the TPM quoted",
            advice="read the PCRs and quote them again; something was measured in between, or they were altered",
        )


def is_attestation_key(key: PublicKey) -> bool:
    """Whether a TPM's attestation key may be like this: P-256, P-384 or RSA of 2048 bits or more."""
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= MIN_RSA_BITS
    return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)


def malformed(what: str) -> EvidenceError:
    return EvidenceError(
        "malformed-quote",
        f"not a TPM quote: {what}",
        advice="do not use it; it was altered or cut off, or is something else",
    )


def _selection(reader: _Reader) -> tuple[int, ...]:
    """A bank the TPM does not have stands there with nothing selected."""
    banks = int.from_bytes(reader.take(4), "big")
    if banks > MAX_BANKS:
        raise malformed(f"{banks} banks of PCRs are over the limit of {MAX_BANKS}")
    selected: tuple[int, ...] | None = None
    for _ in range(banks):
        algorithm, size = struct.unpack(">HB", reader.take(3))
        if size > MAX_SELECT_BYTES:
            raise malformed(f"a selection of {size} bytes is over the limit of {MAX_SELECT_BYTES}")
        bits = int.from_bytes(reader.take(size), "little")
        if bits and (algorithm != SHA256 or selected is not None):
            raise malformed("it is not about the SHA-256 bank alone")
        if bits >> PCRS:
            raise malformed(f"it is about PCRs above {PCRS - 1}")
        if bits:
            selected = tuple(index for index in range(PCRS) if bits >> index & 1)
    if selected is None:
        raise malformed("it is about no PCR at all")
    return selected


class _Reader:
    """Takes from the front, never beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        if len(part) != size:
            raise malformed("it ends too early")
        self._at += size
        return part

    def sized(self, limit: int) -> bytes:
        """A TPM2B: size in two bytes, then as many."""
        size = int.from_bytes(self.take(2), "big")
        if size > limit:
            raise malformed(f"a field of {size} bytes is over its limit of {limit}")
        return self.take(size)

    def end(self) -> None:
        if self._at != len(self._data):
            raise malformed("bytes after its end")
