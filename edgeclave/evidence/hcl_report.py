"""The HCL report of an Azure confidential VM, byte by byte; nothing here verifies anything.

Source: Microsoft, "Azure confidential VM guest attestation design" and OpenHCL's `igvm_attest` formats. Little-endian:
a header of 32 bytes, the hardware report, then the runtime data (JSON) with their size, kind and hash algorithm, then
zeros up to the size of the NV index. Only the hardware report is signed, and it holds the digest of the runtime data;
so everything else must be exactly as expected.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from edgeclave import cose
from edgeclave.errors import EvidenceError
from edgeclave.evidence.sev_snp_report import REPORT_BYTES

MAX_HCL_REPORT_BYTES = 8 << 10  # the NV index has 2600
MAX_RUNTIME_KEYS = 8
MAX_MODULUS_CHARACTERS = 1024  # base64url of RSA-4096 has 683
ATTESTATION_KEY_NAME = "HCLAkPub"

_HEADER = struct.Struct("<4sIIII12s")  # signature, version, size of all, request type, status, reserved
_REQUEST = struct.Struct("<IIIII")  # size of this and the data, version, report type, hash algorithm, size of the data
_SIGNATURE, _VERSIONS, _REQUEST_TYPE, _SNP, _TDX, _SHA256 = b"HCLA", (1, 2), 2, 2, 4, 1


@dataclass(frozen=True)
class HclReport:
    """`report` is the SEV-SNP report, `runtime_data` the JSON that its report data should be the digest of."""

    report: bytes
    runtime_data: bytes

    @property
    def runtime_data_digest(self) -> bytes:
        return cose.sha256(self.runtime_data)


def is_hcl_report(data: bytes) -> bool:
    """Whether these bytes are meant as an HCL report."""
    return data.startswith(_SIGNATURE) and len(data) > _HEADER.size


def parse_hcl_report(data: bytes) -> HclReport:
    """Raises EvidenceError `malformed-quote`, `unknown-platform`."""
    begin = _HEADER.size + REPORT_BYTES + _REQUEST.size
    if not begin <= len(data) <= MAX_HCL_REPORT_BYTES:
        raise malformed(f"a report of {len(data)} bytes")
    signature, version, size, request_type, status, reserved = _HEADER.unpack_from(data)
    if signature != _SIGNATURE or version not in _VERSIONS:
        raise malformed("it does not begin as a report of the paravisor does")
    request_size, request_version, report_type, hash_algorithm, data_size = _REQUEST.unpack_from(
        data, _HEADER.size + REPORT_BYTES
    )
    if report_type == _TDX:
        raise EvidenceError(
            "unknown-platform",
            "an Azure confidential VM on Intel TDX, which this release does not verify as a whole",
            advice="verify its TD quote alone; it says nothing of the vTPM",
        )
    if report_type != _SNP:
        raise malformed(f"hardware report type {report_type} is not SEV-SNP")
    if hash_algorithm != _SHA256:
        raise malformed(f"hash algorithm {hash_algorithm} is not SHA-256")
    end = begin + data_size
    if request_size != _REQUEST.size + data_size or end > len(data) or size != end:
        raise malformed("its sizes contradict one another")
    if (request_type, status, request_version, reserved) != (_REQUEST_TYPE, 0, 1, bytes(12)) or any(data[end:]):
        raise malformed("a field that is not signed has an unexpected value")
    return HclReport(data[_HEADER.size : _HEADER.size + REPORT_BYTES], data[begin:end])


def attestation_key(runtime_data: bytes) -> rsa.RSAPublicKey:
    """The vTPM's attestation key. Only after the runtime data were seen to be those of the report.

    Raises:
        EvidenceError: `malformed-quote`.
    """
    try:
        claims = json.loads(runtime_data, object_pairs_hook=_no_name_twice)
    except (ValueError, RecursionError) as error:
        raise malformed(f"the runtime data are not JSON: {error}") from error
    keys = claims.get("keys") if isinstance(claims, dict) else None
    if not isinstance(keys, list) or len(keys) > MAX_RUNTIME_KEYS:
        raise malformed("the runtime data hold no keys")
    named = [key for key in keys if isinstance(key, dict) and key.get("kid") == ATTESTATION_KEY_NAME]
    if len(named) != 1 or named[0].get("kty") != "RSA":
        raise malformed(f"the runtime data do not hold one RSA key {ATTESTATION_KEY_NAME}")
    try:
        return rsa.RSAPublicNumbers(_number(named[0].get("e")), _number(named[0].get("n"))).public_key()
    except ValueError as error:
        raise malformed(f"{ATTESTATION_KEY_NAME} is no RSA key: {error}") from error


def malformed(what: str) -> EvidenceError:
    return EvidenceError(
        "malformed-quote",
        f"not evidence of an Azure confidential VM: {what}",
        advice="do not use it; it was altered or cut off, or is something else",
    )


def _number(text: Any) -> int:
    if not isinstance(text, str) or len(text) > MAX_MODULUS_CHARACTERS:
        raise malformed("a number of a key is missing or too long")
    return int.from_bytes(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True), "big")


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a name stands there twice")
    return names
