"""The attestation result as EAT Attestation Result (draft-ietf-rats-ear), a JWT by the verifier.

What a relying party reads first is `ear.status`. It is never `affirming` for evidence that proves less than a TEE:

| class | status | because, in the trustworthiness vector |
|---|---|---|
| sgx, optee-device, tdx, sev-snp | affirming | |
| shared-guest, boot-attested | warning | executables are known at boot only; under a TPM only the OS isolates memory |
| emulated, test roots, debug | contraindicated | hardware is not recognised; configuration is unsafe |
"""

from __future__ import annotations

import base64
from typing import Any

from edgeclave import __version__
from edgeclave.errors import EvidenceError
from edgeclave.evidence.anchors import Anchor, PlatformEvidence
from edgeclave.evidence.tokens import PinnedIssuer, TokenSigner
from edgeclave.evidence.verifier import AttestationResult

TYP = "eat+jwt"
PROFILE = "tag:github.com,2023:veraison/ear"
SUBMODULE, PLATFORM_SUBMODULE = "trusted-app", "platform"
AFFIRMING, WARNING, CONTRAINDICATED = "affirming", "warning", "contraindicated"

# Trustworthiness vector (draft-ietf-rats-ar4si): from 2 affirming, from 32 a warning, from 96 the contrary.
_GOOD = 2
_ONLY_AT_BOOT = 33  # executables: what was loaded is recognised, what runs now may be changed by root in the guest
_ISOLATED_BY_THE_OS = 32  # runtime-opaque
_UNRECOGNISED = 97  # hardware
_UNSAFE = 96  # configuration


def vector(result: AttestationResult) -> dict[str, int]:
    """The trustworthiness vector of an accepted result."""
    return _vector(result.anchor, debug=result.identity.debug)


def status(claims: dict[str, int]) -> str:
    """As bad as the worst claim."""
    worst = max(claims.values())
    return CONTRAINDICATED if worst >= _UNSAFE else WARNING if worst >= _ISOLATED_BY_THE_OS else AFFIRMING


def make_ear(
    signer: TokenSigner,
    result: AttestationResult,
    *,
    nonce: bytes | None,
    now: int,
    lifetime_seconds: int,
    as_of: int | None = None,
) -> str:
    """Args:
        nonce: the one that the evidence was asked for with.
        as_of: the time (s since 1970) that the evidence was appraised at, where it is not `now`; the token says so.

    Returns the token; digests are in hex.
    """
    identity, claims = result.identity, vector(result)
    submodule = {
        "ear.status": status(claims),
        "ear.trustworthiness-vector": claims,
        "edgeclave.platform-class": result.platform_class,
        "edgeclave.test": result.test,
        "edgeclave.platform-instance": result.platform_instance.hex(),
        "edgeclave.instance-id": result.instance_id.hex(),
        "edgeclave.evidence-digest": result.evidence_digest.hex(),
        "edgeclave.freshness": result.freshness,
        "edgeclave.unique-id": identity.unique_id.hex(),
        "edgeclave.signer-id": identity.signer_id.hex(),
        "edgeclave.product-id": identity.product_id,
        "edgeclave.security-version": identity.security_version,
        "edgeclave.debug": identity.debug,
    }
    return signer.sign(_token(SUBMODULE, submodule, nonce, now, lifetime_seconds, as_of), typ=TYP)


def make_platform_ear(
    signer: TokenSigner,
    platform: PlatformEvidence,
    *,
    nonce: bytes | None,
    now: int,
    lifetime_seconds: int,
    as_of: int | None = None,
) -> str:
    """The same about an accepted raw quote: a platform and its runtime, nothing about a trusted application."""
    claims = _vector(platform.anchor, debug=platform.debug)
    submodule = {
        "ear.status": status(claims),
        "ear.trustworthiness-vector": claims,
        "edgeclave.platform-class": platform.anchor.platform_class,
        "edgeclave.test": platform.anchor.test,
        "edgeclave.kind": platform.anchor.kind,
        "edgeclave.platform-instance": platform.platform_instance.hex(),
        "edgeclave.freshness": "unknown" if nonce is None else "nonce",
        "edgeclave.debug": platform.debug,
        "edgeclave.report-data": platform.report_data.hex(),
        "edgeclave.runtime": {
            name: value.hex() if isinstance(value, bytes) else value for name, value in platform.runtime.items()
        },
    }
    return signer.sign(_token(PLATFORM_SUBMODULE, submodule, nonce, now, lifetime_seconds, as_of), typ=TYP)


def read_ear(token: str, verifier: PinnedIssuer, *, now: int, submodule: str = SUBMODULE) -> dict[str, Any]:
    """The claims about the trusted application, or about the platform (PLATFORM_SUBMODULE), by a pinned verifier.

    Raises:
        EvidenceError: as `PinnedIssuer.read`, and `malformed-token`.
    """
    claims = verifier.read(token, typ=TYP, now=now)
    submodules = claims.get("submods")
    found = submodules.get(submodule) if isinstance(submodules, dict) else None
    if claims.get("eat_profile") != PROFILE or not isinstance(found, dict) or "ear.status" not in found:
        raise EvidenceError(
            "malformed-token", f"not an attestation result about a {submodule}", advice="ask a verifier of this release"
        )
    return found


def _vector(anchor: Anchor, *, debug: bool) -> dict[str, int]:
    platform = anchor.platform_class
    emulated = platform == "emulated" or anchor.test
    return {
        "instance-identity": _GOOD,
        "configuration": _UNSAFE if debug else _GOOD,
        "executables": _ONLY_AT_BOOT if platform in ("shared-guest", "boot-attested") else _GOOD,
        "hardware": _UNRECOGNISED if emulated else _GOOD,
        "runtime-opaque": _ISOLATED_BY_THE_OS if platform in ("boot-attested", "emulated") else _GOOD,
    }


def _token(
    name: str, submodule: dict[str, Any], nonce: bytes | None, now: int, lifetime_seconds: int, as_of: int | None
) -> dict[str, Any]:
    token: dict[str, Any] = {
        "eat_profile": PROFILE,
        "iat": now,
        "nbf": now,
        "exp": now + lifetime_seconds,
        "ear.verifier-id": {"developer": "edgeclave", "build": __version__},
        "submods": {name: submodule},
    }
    if nonce is not None:
        token["eat_nonce"] = base64.urlsafe_b64encode(nonce).rstrip(b"=").decode()
    if as_of is not None:
        token["edgeclave.appraised-as-of"] = as_of
    return token
