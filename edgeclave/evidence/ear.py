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
from edgeclave.evidence.tokens import PinnedIssuer, TokenSigner
from edgeclave.evidence.verifier import AttestationResult

TYP = "eat+jwt"
PROFILE = "tag:github.com,2023:veraison/ear"
SUBMODULE = "trusted-app"
AFFIRMING, WARNING, CONTRAINDICATED = "affirming", "warning", "contraindicated"

# Trustworthiness vector (draft-ietf-rats-ar4si): from 2 affirming, from 32 a warning, from 96 the contrary.
_GOOD = 2
_ONLY_AT_BOOT = 33  # executables: what was loaded is recognised, what runs now may be changed by root in the guest
_ISOLATED_BY_THE_OS = 32  # runtime-opaque
_UNRECOGNISED = 97  # hardware
_UNSAFE = 96  # configuration


def vector(result: AttestationResult) -> dict[str, int]:
    """The trustworthiness vector of an accepted result."""
    platform = result.platform_class
    emulated = platform == "emulated" or result.test
    return {
        "instance-identity": _GOOD,
        "configuration": _UNSAFE if result.identity.debug else _GOOD,
        "executables": _ONLY_AT_BOOT if platform in ("shared-guest", "boot-attested") else _GOOD,
        "hardware": _UNRECOGNISED if emulated else _GOOD,
        "runtime-opaque": _ISOLATED_BY_THE_OS if platform in ("boot-attested", "emulated") else _GOOD,
    }


def status(claims: dict[str, int]) -> str:
    """As bad as the worst claim."""
    worst = max(claims.values())
    return CONTRAINDICATED if worst >= _UNSAFE else WARNING if worst >= _ISOLATED_BY_THE_OS else AFFIRMING


def make_ear(
    signer: TokenSigner, result: AttestationResult, *, nonce: bytes | None, now: int, lifetime_seconds: int
) -> str:
    """Returns the token; digests are in hex, the nonce is the one the evidence was asked for with."""
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
    token: dict[str, Any] = {
        "eat_profile": PROFILE,
        "iat": now,
        "nbf": now,
        "exp": now + lifetime_seconds,
        "ear.verifier-id": {"developer": "edgeclave", "build": __version__},
        "submods": {SUBMODULE: submodule},
    }
    if nonce is not None:
        token["eat_nonce"] = base64.urlsafe_b64encode(nonce).rstrip(b"=").decode()
    return signer.sign(token, typ=TYP)


def read_ear(token: str, verifier: PinnedIssuer, *, now: int) -> dict[str, Any]:
    """The claims about the trusted application, by a verifier that was pinned.

    Raises:
        EvidenceError: as `PinnedIssuer.read`, and `malformed-token`.
    """
    claims = verifier.read(token, typ=TYP, now=now)
    submodules = claims.get("submods")
    submodule = submodules.get(SUBMODULE) if isinstance(submodules, dict) else None
    if claims.get("eat_profile") != PROFILE or not isinstance(submodule, dict) or "ear.status" not in submodule:
        raise EvidenceError("malformed-token", "not an attestation result of a trusted application")
    return submodule
