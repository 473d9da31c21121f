"""Evidence of an Azure confidential VM in the files of Confidential Containers' attestation agents, for `verify FILE`.

JSON: "hcl_report" and "vcek" in base64url, "tpm_quote" with "message", "signature" and 24 "pcrs" in hex ("version" 1
or 2); or, without a version, "report", "vcek" (PEM) and "quote" with lists of numbers. The signature is RSASSA with
SHA-256, without the header that a TPM puts before it.
"""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from edgeclave.errors import EvidenceError
from edgeclave.evidence.anchors import key_fingerprint
from edgeclave.evidence.hcl_report import attestation_key, malformed, parse_hcl_report
from edgeclave.evidence.tpm import Quote
from edgeclave.evidence.tpm_quote import PCR_BYTES, PCRS, RSASSA, SHA256, parse_attest

MAX_FILE_BYTES = 128 << 10  # lists of numbers take 36 KiB
_VERSIONS = (1, 2)


def read_json(data: bytes) -> tuple[bytes, Quote, bytes]:
    """Returns HCL report, quote and VCEK (PEM or DER), unverified; PCRs that were not quoted are left out.

    Raises:
        EvidenceError: `malformed-quote`.
    """
    if len(data) > MAX_FILE_BYTES:
        raise malformed(f"{len(data)} bytes is over the limit of {MAX_FILE_BYTES}")
    try:
        file = json.loads(data)
        if "version" in file and file["version"] not in _VERSIONS:
            raise malformed(f"version {file['version']!r} of the file is unknown")
        with_version = "version" in file
        hcl_report = _bytes(file["hcl_report" if with_version else "report"])
        quote = file["tpm_quote" if with_version else "quote"]
        message, signature = _hex(quote["message"]), _hex(quote["signature"])
        values = [_hex(value) for value in quote["pcrs"]]
        certificate = _bytes(file["vcek"])
    except EvidenceError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise malformed(f"the file is not in a known form: {error!r}") from error
    if len(values) != PCRS or any(len(value) != PCR_BYTES for value in values):
        raise malformed(f"the file does not hold {PCRS} PCRs of the SHA-256 bank")
    key = key_fingerprint(attestation_key(parse_hcl_report(hcl_report).runtime_data))
    pcrs = {index: values[index] for index in parse_attest(message).pcrs}
    framed = struct.pack(">HHH", RSASSA, SHA256, len(signature)) + signature
    return hcl_report, Quote(key, message, framed, pcrs), certificate


def _bytes(value: Any) -> bytes:
    if isinstance(value, list):
        return bytes(value)
    if not isinstance(value, str):
        raise TypeError("neither a text nor a list of numbers")
    if value.startswith("-----BEGIN"):
        return value.encode()
    return base64.b64decode(value + "=" * (-len(value) % 4), b"-_", validate=True)


def _hex(value: Any) -> bytes:
    return bytes(value) if isinstance(value, list) else bytes.fromhex(value)
