"""What `edgeclave verify` and `edgeclave policy explain` share: one file in, every check with its verdict out."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import typer
from rich.console import Console

from edgeclave import cose
from edgeclave.errors import EdgeclaveError, EvidenceError
from edgeclave.evidence.anchors import UP_TO_DATE, Anchor
from edgeclave.evidence.appraisal import PLATFORM_POINTS, POINTS, Check
from edgeclave.evidence.collection import Collection, decode_collection
from edgeclave.evidence.eat import Claims
from edgeclave.evidence.endorsements import Endorsements, day
from edgeclave.evidence.kinds import KINDS, detect, kind_of
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.reference import UnsafeAnyRuntime
from edgeclave.evidence.tee import Kind
from edgeclave.evidence.verifier import Explanation, Verifier
from edgeclave.evidence.wrapped_files import contents
from edgeclave.results.matching import match_result
from edgeclave.results.sealed import verify_result

UNJUDGED = {
    "class": "without a policy nobody says which class is good enough",
    "runtime": "without a policy nobody says which code is good",
    "trusted-app": "without a policy nobody says which trusted application is good",
    "freshness": "without a policy and a nonce its age is unknown",
}
"""What is not judged without a policy, and why."""
_CURRENT = {UP_TO_DATE, "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"}
"""Without a policy: statuses of a platform that is up to date, whatever else it needs. The others are too old."""
_MARKS = {"passed": "[green]ok[/]     ", "failed": "[bold red]no[/]     ", "not judged": "[yellow]-[/]      "}


@dataclass(frozen=True)
class Verdict:
    """One check as it is reported. verdict: passed, failed, not judged, not reached."""

    point: str
    verdict: str
    found: str
    error: EvidenceError | None = None


@dataclass(frozen=True)
class Outcome:
    """What is reported of one file."""

    what: str
    verdicts: tuple[Verdict, ...]
    explanation: Explanation
    with_policy: bool
    now: int

    @property
    def accepted(self) -> bool:
        return all(each.verdict in ("passed", "not judged") for each in self.verdicts)


def appraise(
    data: bytes, policy: Policy | None, nonce: bytes | None, now: int, endorsements: Endorsements
) -> Outcome | None:
    """Appraises an evidence collection or a raw quote, in whatever other tools put around it; None if it is neither."""
    try:
        for content in contents(data):
            outcome = _appraise(content.data, policy, nonce, now, endorsements)
            if outcome is not None:
                return replace(outcome, what=f"{outcome.what}, in {content.how}") if content.how else outcome
    except EvidenceError as error:
        form = Verdict("form", "failed", "not one quote", error)
        return Outcome("a file around a quote", (form,), Explanation((), None, None), policy is not None, now)
    return None


def _appraise(
    data: bytes, policy: Policy | None, nonce: bytes | None, now: int, endorsements: Endorsements
) -> Outcome | None:
    collection = _collection(data)
    if collection is not None:
        kind = kind_of(collection.platform.media_type)
        verifier = Verifier(policy or _describing(kind), endorsements=endorsements)
        explanation = verifier.explain(data, nonce=nonce, now=now)
        what = "evidence of a trusted application"
        return _outcome(what, POINTS, explanation, policy is not None, nonce, now)
    detected = detect(data)
    if detected is None:
        return None
    name, quote = detected
    verifier = Verifier(policy or _describing(name), endorsements=endorsements)
    explanation = verifier.explain_quote(name, quote, now=now)
    checks = (*explanation.checks, *_nonce_check(explanation, nonce))
    explanation = Explanation(checks, explanation.platform, None)
    points = (*PLATFORM_POINTS, "report-data") if nonce is not None else PLATFORM_POINTS
    return _outcome(f"raw {KINDS[name].title} evidence", points, explanation, policy is not None, nonce, now)


def with_result(
    outcome: Outcome, data: bytes, evidence: bytes, policy: Policy, nonce: bytes | None, endorsements: Endorsements
) -> Outcome:
    """The outcome of the evidence that a sealed result names, and the verdict on the result itself."""
    if not outcome.accepted:
        return replace(outcome, verdicts=(*outcome.verdicts, Verdict("result", "not reached", "its evidence failed")))
    try:
        verifier = Verifier(policy, endorsements=endorsements)
        attested = verifier.verify(evidence, nonce=nonce, now=outcome.now)
        result = verify_result(data, attested.signing_key)
        match_result(result, attested, policy)
    except EdgeclaveError as error:
        refusal = EvidenceError(error.code, error.what, where=error.where, advice=error.advice)
        return replace(outcome, verdicts=(*outcome.verdicts, Verdict("result", "failed", "not proven", refusal)))
    header = result.header
    found = f"number {header.sequence} on {header.output} of epoch {header.epoch}, assurance {header.assurance}"
    return replace(outcome, verdicts=(*outcome.verdicts, Verdict("result", "passed", found)))


def as_json(outcome: Outcome) -> dict[str, Any]:
    """What scripts read."""
    platform = outcome.explanation.platform
    report: dict[str, Any] = {
        "verdict": "accepted" if outcome.accepted else "refused",
        "what": outcome.what,
        "policy": outcome.with_policy,
        "at": outcome.now,
        "checks": [_check_json(each) for each in outcome.verdicts],
    }
    if platform is not None:
        report["platform"] = {
            "kind": platform.anchor.kind,
            "class": platform.anchor.platform_class,
            "test": platform.anchor.test,
            "root": platform.anchor.name or None,
            "platform_instance": platform.platform_instance.hex(),
            "debug": platform.debug,
            "tcb": None
            if platform.tcb is None
            else {"status": platform.tcb.status, "advisories": list(platform.tcb.advisories)},
            "runtime": {name: _value(value) for name, value in platform.runtime.items()},
            "report_data": platform.report_data.hex(),
            "details": dict(platform.details),
        }
    if outcome.explanation.claims is not None:
        report["claims"] = _claims_json(outcome.explanation.claims)
    return report


def show(outcome: Outcome, json_wanted: bool) -> None:
    """Prints the outcome for people, or as one JSON object."""
    if json_wanted:
        typer.echo(json.dumps(as_json(outcome)))
        return
    console = Console(soft_wrap=True, highlight=False, emoji=False)
    console.print(f"{outcome.what}, at {day(outcome.now)}", markup=False)
    for each in outcome.verdicts:
        console.print(_MARKS.get(each.verdict, "[dim]-[/]      "), end="")
        found = each.found if each.error is None else each.error.what
        console.print(f"{each.point:<17}{found}", markup=False)
        if each.error is not None:
            if each.error.where:
                console.print(f"{'':<24}where: {each.error.where}", markup=False)
            console.print(f"{'':<24}[{each.error.code}] do: {each.error.advice}", markup=False)
    platform = outcome.explanation.platform
    if platform is not None:
        for name, value in platform.details.items():
            console.print(f"{'':<7}{name:<28}{value}", markup=False, style="dim")
        if platform.anchor.test:
            console.print("Stand-in hardware under a TEST root: it proves nothing.", style="bold yellow")
    verdict = "accepted" if outcome.accepted else "refused"
    console.print(verdict, style="bold green" if outcome.accepted else "bold red", end="")
    if outcome.with_policy:
        console.print("")
    else:
        console.print(": only signatures and TCB were judged; whose code it runs is for a policy (--policy FILE)")


def _collection(data: bytes) -> Collection | None:
    try:
        return decode_collection(data)
    except EvidenceError:
        return None


def _describing(kind: str | None) -> Policy:
    """The vendor's roots for a kind, and nothing about code: signatures and TCB are judged, all else is described."""
    known = KINDS.get(kind or "")
    if known is None:
        return Policy(anchors=(), runtime={}, classes=frozenset(), trusted_apps=())
    return Policy(
        anchors=vendor_anchors(known),
        runtime={known.name: UnsafeAnyRuntime()},
        classes=known.classes,
        trusted_apps=(),
        freshness="unknown",
    )


def vendor_anchors(kind: Kind) -> tuple[Anchor, ...]:
    """The vendor's roots for a kind, in the class its platforms usually have."""
    platform_class = kind.usual_class or min(kind.classes)
    return tuple(Anchor(kind.name, platform_class, root, name=name) for name, root in kind.roots.items())


def _outcome(
    what: str, points: tuple[str, ...], explanation: Explanation, with_policy: bool, nonce: bytes | None, now: int
) -> Outcome:
    made = {check.point: check for check in explanation.checks}
    failed = [check.point for check in explanation.checks if check.error]
    verdicts = []
    for point in points:
        check = made.get(point)
        if check is None:
            judged = with_policy or point not in ("security-version", *UNJUDGED) or not failed
            verdict = Verdict(point, "not reached" if failed and judged else "not judged", _unreached(failed))
        elif not with_policy and point in UNJUDGED and not (point == "freshness" and nonce is not None):
            verdict = Verdict(point, "not judged", f"{check.found}; {UNJUDGED[point]}")
        elif not with_policy and point == "tcb" and check.error and _is_current(explanation):
            verdict = Verdict(point, "passed", f"{check.found}; up to date, but see what it needs")
        else:
            verdict = Verdict(point, "failed" if check.error else "passed", check.found, check.error)
        verdicts.append(verdict)
    return Outcome(what, tuple(verdicts), explanation, with_policy, now)


def _unreached(failed: list[str]) -> str:
    return f"there is nothing to look at after {failed[-1]}" if failed else "not part of it"


def _is_current(explanation: Explanation) -> bool:
    platform = explanation.platform
    return platform is not None and platform.tcb is not None and platform.tcb.status in _CURRENT


def _nonce_check(explanation: Explanation, nonce: bytes | None) -> list[Check]:
    """A raw quote was made for a nonce if its report data is the nonce and zeros."""
    platform = explanation.platform
    if nonce is None or platform is None:
        return []
    if platform.report_data == nonce.ljust(len(platform.report_data), b"\0"):
        return [Check("report-data", "it is the nonce")]
    error = EvidenceError("wrong-nonce", "the report data is not the nonce and zeros", advice="ask for it again")
    return [Check("report-data", platform.report_data.hex(), error)]


def _check_json(verdict: Verdict) -> dict[str, Any]:
    report: dict[str, Any] = {"point": verdict.point, "verdict": verdict.verdict, "found": verdict.found}
    if verdict.error is not None:
        error = verdict.error
        report |= {"code": error.code, "what": error.what, "where": error.where or None, "advice": error.advice}
    return report


def _claims_json(claims: Claims) -> dict[str, Any]:
    identity = claims.identity
    return {
        "unique_id": identity.unique_id.hex(),
        "signer_id": identity.signer_id.hex(),
        "product_id": identity.product_id,
        "security_version": identity.security_version,
        "debug": identity.debug,
        "instance": cose.thumbprint(claims.signing_key).hex(),
        "nonce": None if claims.nonce is None else claims.nonce.hex(),
        "epoch": claims.epoch.number,
        "storage_level": claims.storage_level,
        "recipients": {output: version for output, (version, _) in claims.recipients.items()},
        "host_time": claims.host_time,
    }


def _value(value: bytes | int) -> str | int:
    return value.hex() if isinstance(value, bytes) else value
