"""`edgeclave verify` of a token: a pinned issuer, its pinned keys, our policy."""

from __future__ import annotations

from pathlib import Path

from edgeclave.cli.appraising import UNJUDGED, Outcome, Verdict
from edgeclave.cli.verify_inputs import read_limited
from edgeclave.errors import ConfigurationError
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.token_appraisal import appraise_token
from edgeclave.evidence.tokens import PinnedIssuer
from edgeclave.evidence.verifier import Explanation


def read_issuer(issuer: str | None, jwks: Path | None) -> PinnedIssuer | None:
    """Raises ConfigurationError `needs-issuer`, `no-such-file`, `bad-jwks`."""
    if issuer is None and jwks is None:
        return None
    if issuer is None or jwks is None:
        raise _needs_issuer()
    try:
        return PinnedIssuer.from_jwks(issuer, read_limited(jwks))
    except ConfigurationError as error:
        where = error.where or f"--jwks {jwks}"
        raise ConfigurationError(error.code, error.what, where=where, advice=error.advice) from error


def verify_token(
    token: bytes, pinned: PinnedIssuer | None, policy: Policy | None, nonce: bytes | None, now: int
) -> Outcome:
    """Raises ConfigurationError `needs-issuer`."""
    if pinned is None:
        raise _needs_issuer()
    checks = tuple(appraise_token(token.decode("ascii"), pinned, policy, nonce, now))
    verdicts = [Verdict(each.point, "failed" if each.error else "passed", each.found, each.error) for each in checks]
    if policy is None:
        verdicts += [Verdict(point, "not judged", UNJUDGED[point]) for point in ("class", "runtime")]
    elif not any(each.point == "trusted-app" for each in checks):
        verdicts.append(Verdict("trusted-app", "not judged", "the token says nothing about a trusted application"))
    return Outcome("attestation token", tuple(verdicts), Explanation(checks, None, None), policy is not None, now)


def _needs_issuer() -> ConfigurationError:
    return ConfigurationError(
        "needs-issuer",
        "a token proves something only if its issuer and its keys are pinned",
        where="--issuer, --jwks",
        advice="add --issuer URL and --jwks FILE, fetched before from URL/certs",
    )
