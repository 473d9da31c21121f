"""`edgeclave verify`: one file, offline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from edgeclave.cli.appraising import Outcome, appraise, show, with_result
from edgeclave.cli.main import show_error
from edgeclave.cli.unreadable import appraise_hcl_report, is_result, not_readable
from edgeclave.cli.verify_archived import looks_like_record, verify_archived
from edgeclave.cli.verify_inputs import read_endorsements, read_input, read_limited, read_nonce, read_time
from edgeclave.cli.verify_token import read_issuer, verify_token
from edgeclave.errors import ConfigurationError
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.policy_file import load_policy
from edgeclave.evidence.wrapped_files import token_in

REFUSED, NOT_READABLE = 1, 2
_ONLY_FOR = {
    "--evidence": (("a sealed result",), "only a sealed result has its evidence in another file"),
    "--nonce": (("a token", "a sealed result", "evidence"), "an archived result is no answer to a nonce of today"),
    "--endorsements": (
        ("a result of an archive", "a sealed result", "evidence"),
        "a token says what its issuer found with the endorsements it had",
    ),
    "--issuer": (("a token", "a result of an archive"), "only a token, or one in an archive, has an issuer"),
    "--jwks": (("a token", "a result of an archive"), "only a token, or one in an archive, has an issuer"),
    "--timestamp-ca": (("a result of an archive",), "only results of an archive have timestamps"),
}
"""Option: what it can be about, and why nothing else."""


def verify(
    file: Annotated[
        Path, typer.Argument(help="A quote or report, evidence, a sealed result or a token; - for standard input.")
    ],
    policy: Annotated[Path | None, typer.Option(help="What to accept; see `edgeclave policy init`.")] = None,
    evidence: Annotated[Path | None, typer.Option(help="The evidence that a sealed result names.")] = None,
    nonce: Annotated[str | None, typer.Option(help="The nonce it was asked for with, in hex.")] = None,
    at: Annotated[
        str | None, typer.Option("--at", "--now", metavar="TIME", help="Verify as of then. Default: now.")
    ] = None,
    endorsements: Annotated[
        Path | None,
        typer.Option(metavar="DIR|FILE", help="Endorsements to use instead of the imported ones."),
    ] = None,
    issuer: Annotated[
        str | None, typer.Option(help="Whose token, or archived attestation result, is believed.")
    ] = None,
    jwks: Annotated[Path | None, typer.Option(help="Its keys (JWKS), fetched before over a trusted channel.")] = None,
    timestamp_ca: Annotated[
        Path | None,
        typer.Option(help="Root of the timestamp authority that must say that an archived result existed then."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Verify a file offline: a raw quote or report (its kind is detected, also in hex, base64, PEM, JSON or behind Open
    Enclave's header), our evidence, a sealed result, a token of Microsoft Azure Attestation or of `edgeclave verifier
    serve`, or a result of an archive (with --at: as of then).

    Without a policy, a quote is verified up to the vendor's built-in root and described; the verdict is then about
    signatures and TCB only.

    Exit codes: 0 accepted; 1 refused; 2 not readable.

    Example: edgeclave verify quote.bin --endorsements collateral.json --at 2025-07-19T09:56:40Z
    """
    given = {
        "--evidence": evidence,
        "--nonce": nonce,
        "--endorsements": endorsements,
        "--issuer": issuer,
        "--jwks": jwks,
        "--timestamp-ca": timestamp_ca,
    }
    try:
        loaded = None if policy is None else load_policy(policy)
        data = read_input(file)
        if (token := token_in(data)) is not None:
            _require_fitting("a token", given)
            outcome = verify_token(token, read_issuer(issuer, jwks), loaded, read_nonce(nonce), read_time(at))
        elif looks_like_record(data):
            _require_fitting("a result of an archive", given)
            pinned = read_issuer(issuer, jwks)
            outcome = verify_archived(file, data, loaded, at, endorsements, pinned, timestamp_ca)
        elif is_result(data):
            _require_fitting("a sealed result", given)
            outcome = _verify_result(data, loaded, evidence, read_nonce(nonce), read_time(at), endorsements)
        else:
            outcome = _verify(file, data, loaded, read_nonce(nonce), read_time(at), endorsements)
            _require_fitting("evidence", given)
    except ConfigurationError as error:
        show_error(error)
        raise typer.Exit(NOT_READABLE) from error
    show(outcome, as_json)
    if not outcome.accepted:
        raise typer.Exit(REFUSED)


def _verify(
    file: Path, data: bytes, policy: Policy | None, nonce: bytes | None, now: int, endorsements: Path | None
) -> Outcome:
    known = read_endorsements(endorsements)
    outcome = appraise(data, policy, nonce, now, known) or appraise_hcl_report(data, policy, now, known)
    if outcome is None:
        raise not_readable(data, file)
    return outcome


def _verify_result(
    data: bytes, policy: Policy | None, evidence: Path | None, nonce: bytes | None, now: int, endorsements: Path | None
) -> Outcome:
    if evidence is None or policy is None:
        raise ConfigurationError(
            "needs-evidence", "a sealed result proves something only with its evidence and a policy",
            where="--evidence, --policy",
            advice="add --evidence FILE and --policy FILE",
        )  # fmt: skip
    known, evidence_data = read_endorsements(endorsements), read_limited(evidence)
    outcome = appraise(evidence_data, policy, nonce, now, known)
    if outcome is None:
        raise not_readable(evidence_data, evidence)
    outcome = replace(outcome, what="a sealed result and its evidence")
    return with_result(outcome, data, evidence_data, policy, nonce, known)


def _require_fitting(kind: str, given: Mapping[str, object]) -> None:
    for option, value in given.items():
        kinds, why = _ONLY_FOR[option]
        if value is not None and kind not in kinds:
            raise ConfigurationError(
                "does-not-apply",
                f"{why}; this is {kind}",
                where=option,
                advice=f"leave it out, or name the file of {' or '.join(kinds)}",
            )
