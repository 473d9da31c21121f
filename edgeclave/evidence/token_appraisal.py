"""Attestation results of others, appraised under our policy: tokens of Microsoft Azure Attestation, and EAR of a
verifier like ours. The issuer and its keys are pinned by who asks; what it says is then judged as evidence would be.

| token | class |
|---|---|
| MAA `sgx` | sgx |
| MAA `sevsnpvm` | shared-guest: such machines are general-purpose confidential VMs |
| EAR about a trusted application, or a platform | as the verifier says |
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import jwt
import msgspec
from msgspec import Meta

from edgeclave.errors import EvidenceError
from edgeclave.evidence import ear, maa
from edgeclave.evidence.anchors import Measurement
from edgeclave.evidence.appraisal import Check
from edgeclave.evidence.endorsements import day
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.tokens import PinnedIssuer
from edgeclave.ta.identity import Identity
from edgeclave.wire import Unsigned16

_LAST_SECOND = 253_402_300_799  # of the year 9999
_Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
POINTS = ("token", "class", "debug", "runtime", "trusted-app", "freshness")
_MAA_CLASSES = {maa.SGX: ("sgx", "sgx"), maa.SEV_SNP: ("sev-snp", "shared-guest")}
"""Attestation type to the kind of its registers, and class."""


class _Said(msgspec.Struct, rename=lambda name: f"edgeclave.{name.replace('_', '-')}"):
    """What an EAR of ours says in its submodule, see `ear`."""

    platform_class: str
    debug: bool
    freshness: str
    status: str = msgspec.field(name="ear.status")


class _SaidOfApp(_Said, rename=lambda name: f"edgeclave.{name.replace('_', '-')}"):
    unique_id: _Digest
    signer_id: _Digest
    product_id: Unsigned16
    security_version: Unsigned16

    @property
    def identity(self) -> Identity:
        digests = bytes.fromhex(self.unique_id), bytes.fromhex(self.signer_id)
        return Identity(*digests, self.product_id, self.security_version, self.debug)


class _SaidOfPlatform(_Said, rename=lambda name: f"edgeclave.{name.replace('_', '-')}"):
    kind: str
    runtime: dict[str, str | int]


def appraise_token(
    token: str, issuer: PinnedIssuer, policy: Policy | None, nonce: bytes | None, now: int
) -> Iterator[Check]:
    """The checks of a token in their order. Without a policy, only whose token it is and when it is valid."""
    try:
        if jwt.get_unverified_header(token).get("typ") == ear.TYP:
            yield from _of_ear(token, issuer, policy, nonce, now)
        else:
            yield from _of_maa(token, issuer, policy, nonce, now)
    except (jwt.PyJWTError, msgspec.ValidationError, ValueError, RecursionError) as error:
        yield Check("token", "", EvidenceError("malformed-token", f"not a token: {error}", advice="ask for a new one"))
    except EvidenceError as error:
        yield Check("token", "", error)


def _of_maa(token: str, issuer: PinnedIssuer, policy: Policy | None, nonce: bytes | None, now: int) -> Iterator[Check]:
    claims = issuer.read(token, typ=maa.TYP, now=now)
    attestation_type = claims.get("x-ms-attestation-type")
    if not isinstance(attestation_type, str) or attestation_type not in _MAA_CLASSES:
        what = f"a token about {str(attestation_type)[:80]}, which this release does not know"
        raise EvidenceError("wrong-attestation-type", what, advice="ask for a token about sgx or sevsnpvm")
    claims = maa.read_token(token, issuer, attestation_type=attestation_type, now=now)
    runtime, debug, report_data = maa.measurement(claims)
    kind, platform_class = _MAA_CLASSES[attestation_type]
    as_of = _as_of(claims, "x-edgeclave-appraised-as-of")
    yield Check("token", f"of {issuer.issuer}, about {attestation_type}{as_of}")
    if policy is not None:
        yield _class(policy, platform_class)
        yield _debug(policy, debug)
        yield _runtime(policy, runtime, kind)
    if nonce is not None:
        yield _made_for(report_data.rstrip(b"\0"), nonce.rstrip(b"\0"))
    elif policy is not None:
        yield _freshness(policy, "unknown", now - claims["iat"])


def _of_ear(token: str, issuer: PinnedIssuer, policy: Policy | None, nonce: bytes | None, now: int) -> Iterator[Check]:
    claims = issuer.read(token, typ=ear.TYP, now=now)
    submodules = claims.get("submods")
    of_app = isinstance(submodules, dict) and ear.SUBMODULE in submodules
    about = ear.read_ear(token, issuer, now=now, submodule=ear.SUBMODULE if of_app else ear.PLATFORM_SUBMODULE)
    said: _SaidOfApp | _SaidOfPlatform
    said = msgspec.convert(about, _SaidOfApp) if of_app else msgspec.convert(about, _SaidOfPlatform)
    runtime = {} if isinstance(said, _SaidOfApp) else {name: _register(each) for name, each in said.runtime.items()}
    if said.status == ear.CONTRAINDICATED and said.platform_class != "emulated" and not said.debug:
        raise EvidenceError(
            "contraindicated", "the verifier itself advises against the platform", advice="do not use it; ask it why"
        )
    yield Check("token", f"of {issuer.issuer}: {said.status}{_as_of(claims, 'edgeclave.appraised-as-of')}")
    if policy is not None:
        yield _class(policy, said.platform_class)
        yield _debug(policy, said.debug)
        if isinstance(said, _SaidOfApp):
            yield _trusted_app(policy, said.identity)
        else:
            yield _runtime(policy, runtime, said.kind)
    if nonce is not None:
        encoded = claims.get("eat_nonce")
        text = encoded if isinstance(encoded, str) else ""
        yield _made_for(text.encode("utf-8", "replace"), base64.urlsafe_b64encode(nonce).rstrip(b"="))
    elif policy is not None:
        yield _freshness(policy, said.freshness, now - claims["iat"])


def _as_of(claims: Mapping[str, Any], name: str) -> str:
    """A verifier that was told to appraise as of another time than now says so: it knew only what was known then."""
    when = claims.get(name)
    if when is None:
        return ""
    if type(when) is not int or not 0 <= when <= _LAST_SECOND:
        raise EvidenceError("malformed-token", f"{name} is not a time", advice="ask for a new one")
    return f", appraised as of {day(when)}"


def _register(value: str | int) -> bytes | int:
    return bytes.fromhex(value) if isinstance(value, str) else value


def _class(policy: Policy, found: str) -> Check:
    if found in policy.classes:
        return Check("class", found)
    advice = f'add "{found}" to `classes`, if that is good enough for these results'
    return Check(
        "class", found, EvidenceError("class-not-accepted", f"the platform is of class {found}", advice=advice)
    )


def _debug(policy: Policy, debug: bool) -> Check:
    if debug and not policy.debug:
        what = "what it is about can be debugged"
        return Check("debug", what, EvidenceError("debug-platform", what, advice="use a production platform and code"))
    return Check("debug", f"debug is {'on' if debug else 'off'}")


def _runtime(policy: Policy, runtime: Measurement, kind: str) -> Check:
    rule = policy.runtime.get(kind)
    differences = [f"the policy has no reference value for {kind}"] if rule is None else rule.differences(runtime)
    found = ", ".join(f"{name} {each.hex() if isinstance(each, bytes) else each}" for name, each in runtime.items())
    if not differences:
        return Check("runtime", found)
    what = f"the measured runtime is no reference value: {'; '.join(differences)}"
    advice = f"install the release the policy names, or add the measurement to `runtime.{kind}`"
    return Check("runtime", found, EvidenceError("wrong-runtime", what, advice=advice))


def _trusted_app(policy: Policy, identity: Identity) -> Check:
    found = f"product {identity.product_id} of signer {identity.signer_id.hex()}, version {identity.security_version}"
    rules = [rule for rule in policy.trusted_apps if rule.names(identity)]
    if not rules:
        advice = "add it to `trusted_apps`, if it is yours"
        error = EvidenceError("unknown-trusted-app", f"the policy does not name {found}", advice=advice)
        return Check("trusted-app", found, error)
    if identity.security_version < min(rule.minimum_security_version for rule in rules):
        what = f"security version {identity.security_version} is too low"
        error = EvidenceError("security-version-too-low", what, advice="upgrade the trusted application")
        return Check("trusted-app", found, error)
    return Check("trusted-app", found)


def _made_for(found: bytes, wanted: bytes) -> Check:
    if hmac.compare_digest(found, wanted):
        return Check("freshness", "it was made for the nonce")
    error = EvidenceError("wrong-nonce", "the token was not made for this nonce", advice="ask for it again")
    return Check("freshness", "made for another nonce", error)


def _freshness(policy: Policy, shown: str, age: int) -> Check:
    """`shown` to the verifier, before it made the token `age` seconds ago."""
    found = f"{shown}, the token was made {age} s ago"
    accepted = {"nonce": ("nonce",), "beacon": ("nonce", "beacon"), "unknown": ("nonce", "beacon", "unknown")}
    if shown not in accepted[policy.freshness]:
        what = f"the freshness of the evidence is {shown}, the policy asks for {policy.freshness}"
        advice = 'give the nonce it was asked for with, or name `freshness = "unknown"` in the policy'
        return Check("freshness", found, EvidenceError("freshness-unknown", what, advice=advice))
    if shown != "unknown" and age > policy.maximum_age_seconds:
        what = f"the token is {age} s old, the policy allows {policy.maximum_age_seconds} s"
        return Check("freshness", found, EvidenceError("evidence-too-old", what, advice="ask for a new one"))
    return Check("freshness", found)
