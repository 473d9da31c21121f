"""Tokens of the form of Microsoft Azure Attestation: made, so that relying parties written for it need no change; and
read, when the real service made them, with a pinned issuer and keys (`tokens`).

What such a token proves is what its issuer says; `x-ms-policy-hash` names the rules by which it says so. Evidence that
is emulated, or of stand-in hardware, gets none: the form has no word for it.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Any

from edgeclave import cose
from edgeclave.errors import EvidenceError
from edgeclave.evidence.anchors import Measurement, PlatformEvidence
from edgeclave.evidence.tokens import PinnedIssuer, TokenSigner

TYP = "JWT"
VERSION = "1.0"
SGX, SEV_SNP = "sgx", "sevsnpvm"
MAX_RUNTIME_DATA_BYTES = 32 << 10
_SNP_REGISTERS = {
    "authorkeydigest": "author_key_digest",
    "bootloader-svn": "bootloader",
    "familyId": "family_id",
    "guestsvn": "guest_svn",
    "hostdata": "host_data",
    "idkeydigest": "id_key_digest",
    "imageId": "image_id",
    "launchmeasurement": "measurement",
    "microcode-svn": "microcode",
    "snpfw-svn": "snp",
    "tee-svn": "tee",
    "vmpl": "vmpl",
}
_SGX_REGISTERS = {
    "mrenclave": "mrenclave",
    "mrsigner": "mrsigner",
    "product-id": "isvprodid",
    "svn": "isvsvn",
}


def make_token(
    signer: TokenSigner,
    platform: PlatformEvidence,
    *,
    policy: bytes,
    now: int,
    lifetime_seconds: int,
    runtime_data: bytes | None = None,
    as_of: int | None = None,
) -> str:
    """Args:
        platform: what was appraised: kind `sgx` or `sev-snp`.
        policy: the text of the policy it was appraised under; its SHA-256 stands in the token.
        runtime_data: what the enclave's user says; its SHA-256 must be the first half of the report
            data.
        as_of: the time (s since 1970) it was appraised at, where that is not `now`; the token says so.

    Raises:
        EvidenceError: `no-such-token`, `wrong-runtime-data`.
    """
    claims: dict[str, Any] = {
        "iat": now,
        "nbf": now,
        "exp": now + lifetime_seconds,
        "jti": secrets.token_hex(32),
        "x-ms-ver": VERSION,
        "x-ms-policy-hash": _base64url(cose.sha256(policy)),
        **_platform(platform),
    }
    if runtime_data is not None:
        claims |= _runtime(runtime_data, platform)
    if as_of is not None:
        claims["x-edgeclave-appraised-as-of"] = as_of
    return signer.sign(claims, typ=TYP)


def read_token(token: str, issuer: PinnedIssuer, *, attestation_type: str, now: int) -> dict[str, Any]:
    """The claims of a token of the real service, or of `make_token`.

    Args:
        attestation_type: what is asked for, `sgx` or `sevsnpvm`; a token about anything else is refused.

    Raises:
        EvidenceError: as `PinnedIssuer.read`, `malformed-token`, `wrong-attestation-type`.
    """
    claims = issuer.read(token, typ=TYP, now=now)
    if claims.get("x-ms-ver") != VERSION:
        raise _malformed("not of version 1.0 of the service")
    found = claims.get("x-ms-attestation-type")
    if found != attestation_type:
        raise EvidenceError(
            "wrong-attestation-type",
            f"the token is about {str(found)[:80]}, not about {attestation_type}",
            advice="do not use it; ask for the type of platform that is meant",
        )
    return claims


def measurement(claims: Mapping[str, Any]) -> tuple[Measurement, bool, bytes]:
    """What a token of `read_token` says of the platform: its registers, debug, and report data (64 bytes).

    Raises:
        EvidenceError: `malformed-token`, `migration-agent`.
    """
    is_sgx = claims["x-ms-attestation-type"] == SGX
    prefix, named = ("x-ms-sgx-", _SGX_REGISTERS) if is_sgx else ("x-ms-sevsnpvm-", _SNP_REGISTERS)
    try:
        said = {register: claims[prefix + claim] for claim, register in named.items()}
        runtime = {name: bytes.fromhex(value) if isinstance(value, str) else value for name, value in said.items()}
        debug = claims[f"{prefix}is-debuggable"]
        report_data = bytes.fromhex(claims[f"{prefix}{'report-data' if is_sgx else 'reportdata'}"])
    except (KeyError, TypeError, ValueError) as error:
        raise _malformed(f"a claim is missing or unreadable: {error}") from error
    if type(debug) is not bool or any(type(value) not in (bytes, int) for value in runtime.values()):
        raise _malformed("a claim about the platform has another form")
    if not is_sgx and claims.get("x-ms-sevsnpvm-migration-allowed", False) is not False:
        raise EvidenceError(
            "migration-agent",
            "the guest policy lets a migration agent read the guest's memory",
            advice="launch the guest without MIGRATE_MA",
        )
    return runtime, debug, report_data


def _platform(platform: PlatformEvidence) -> dict[str, Any]:
    kind = platform.anchor.kind
    if platform.anchor.platform_class == "emulated" or platform.anchor.test or kind not in ("sgx", "sev-snp"):
        raise EvidenceError(
            "no-such-token",
            f"there is no such token for evidence of kind {kind} and class {platform.anchor.platform_class}",
            advice="ask for an EAR",
        )
    if kind == "sgx":
        return {"x-ms-attestation-type": SGX, **_named("x-ms-sgx-", _SGX_REGISTERS, platform)}
    named = _named("x-ms-sevsnpvm-", _SNP_REGISTERS, platform)
    return {"x-ms-attestation-type": SEV_SNP, "x-ms-sevsnpvm-migration-allowed": False, **named}


def _runtime(data: bytes, platform: PlatformEvidence) -> dict[str, Any]:
    """As the service shows them: the bytes for SGX, and a JSON object as it is."""
    digest = cose.sha256(data)
    if len(data) > MAX_RUNTIME_DATA_BYTES or not hmac.compare_digest(platform.report_data[: len(digest)], digest):
        raise EvidenceError(
            "wrong-runtime-data",
            "the quote is not about these runtime data",
            advice="ask for a quote whose report data begin with the SHA-256 of the runtime data",
        )
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    shown: dict[str, Any] = {"x-ms-runtime": value} if isinstance(value, dict) else {}
    return shown | ({"x-ms-sgx-ehd": _base64url(data)} if platform.anchor.kind == "sgx" else {})


def _named(prefix: str, registers: dict[str, str], platform: PlatformEvidence) -> dict[str, Any]:
    measured: Measurement = platform.runtime
    claims = {prefix + claim: measured[register] for claim, register in registers.items()}
    shown = {claim: value.hex() if isinstance(value, bytes) else value for claim, value in claims.items()}
    report_data = "report-data" if prefix == "x-ms-sgx-" else "reportdata"
    return {**shown, f"{prefix}{report_data}": platform.report_data.hex(), f"{prefix}is-debuggable": platform.debug}


def _malformed(what: str) -> EvidenceError:
    return EvidenceError(
        "malformed-token", f"not a token of the service: {what}", advice="do not use it; ask for a new token"
    )


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
