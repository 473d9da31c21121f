"""`edgeclave verify`: one file, offline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from edgeclave import cose
from edgeclave.cli.appraising import Outcome, appraise, show, with_result
from edgeclave.cli.main import show_error
from edgeclave.cli.verify_archived import looks_like_record, verify_archived
from edgeclave.cli.verify_inputs import read_endorsements, read_input, read_nonce, read_time
from edgeclave.cli.verify_token import read_issuer, verify_token
from edgeclave.errors import ConfigurationError
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.policy_file import load_policy
from edgeclave.evidence.token_appraisal import looks_like_token
from edgeclave.results.sealed import RESULT

REFUSED, NOT_READABLE = 1, 2


def verify(
    file: Annotated[Path, typer.Argument(help="A raw quote or report, an evidence collection, or a sealed result.")],
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
    try:
        loaded = None if policy is None else load_policy(policy)
        data, pinned = read_input(file), read_issuer(issuer, jwks)
        if timestamp_ca is not None:
            _require_record(data)
        if looks_like_token(data):
            outcome = verify_token(data, pinned, loaded, read_nonce(nonce), read_time(at))
        elif looks_like_record(data):
            outcome = verify_archived(file, data, loaded, at, endorsements, pinned, timestamp_ca)
        else:
            outcome = _verify(
                file,
                data,
                loaded,
                None if evidence is None else read_input(evidence),
                read_nonce(nonce),
                read_time(at),
                endorsements,
            )
    except ConfigurationError as error:
        show_error(error)
        raise typer.Exit(NOT_READABLE) from error
    show(outcome, as_json)
    if not outcome.accepted:
        raise typer.Exit(REFUSED)


def _verify(
    file: Path,
    data: bytes,
    policy: Policy | None,
    evidence: bytes | None,
    nonce: bytes | None,
    now: int,
    endorsements: Path | None,
) -> Outcome:
    known = read_endorsements(endorsements)
    if not _is_result(data):
        outcome = appraise(data, policy, nonce, now, known)
        if outcome is None:
            raise ConfigurationError(
                "not-readable",
                "neither a quote or report of a platform this release knows, nor evidence, nor a sealed result"
                if data
                else "the file is empty",
                where=str(file),
                advice="it may be in hex, base64, PEM, JSON or behind Open Enclave's header, but not in a certificate",
            )
        return outcome
    if evidence is None or policy is None:
        raise ConfigurationError(
            "needs-evidence", "a sealed result proves something only with its evidence and a policy",
            advice="add --evidence FILE and --policy FILE",
        )  # fmt: skip
    outcome = appraise(evidence, policy, nonce, now, known)
    if outcome is None:
        raise ConfigurationError("not-readable", "not evidence this release knows", where="--evidence")
    outcome = replace(outcome, what="a sealed result and its evidence")
    return with_result(outcome, data, evidence, policy, nonce, known)


def _require_record(data: bytes) -> None:
    if not looks_like_record(data):
        raise ConfigurationError(
            "no-timestamp",
            "only results of an archive have timestamps",
            where="--timestamp-ca",
            advice="name a file of its `results`",
        )


def _is_result(data: bytes) -> bool:
    try:
        return cose.parse(data).protected.get(cose.TYP) == RESULT.media_type
    except cose.SignatureError:
        return False
