"""Files that cannot be verified, and why: what they are instead, or what is missing."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgeclave import cose
from edgeclave.cli.appraising import Outcome, Verdict, vendor_anchors
from edgeclave.cli.verify_inputs import STANDARD_INPUT
from edgeclave.errors import ConfigurationError, EvidenceError
from edgeclave.evidence import azure_cvm
from edgeclave.evidence.anchors import PlatformEvidence
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.hcl_report import is_hcl_report
from edgeclave.evidence.kinds import endorsement_types
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.tpm_quote import MAX_SIGNATURE_BYTES, QUOTE_HEAD
from edgeclave.evidence.verifier import Explanation
from edgeclave.evidence.wrapped_files import contents, endorsements_in, token_in
from edgeclave.evidence.x509_files import read_signed
from edgeclave.results.sealed import RESULT

_FORMS = "it may be in hex, base64, PEM, JSON or behind Open Enclave's header"
_TD_REPORT_BYTES, _TD_REPORT_TYPE = 1024, b"\x81"  # TDREPORT_STRUCT and its REPORTTYPE, Intel TDX module specification
_TPM_QUOTE = (
    "a TPM's quote alone, without the key that made it or its PCRs",
    "give key, quote, signature and PCRs in one file, and for an Azure confidential VM the HCL report, as "
    "docs/evidence-amd-tpm.md says",
)
_ON_TDX = (
    "evidence of an Azure confidential VM on Intel TDX, which this release does not verify as a whole",
    "verify its TD quote alone, which says nothing of the vTPM",
)
_COLLATERAL = (
    "a part of Intel's collateral, not evidence",
    "all parts belong into one file; `edgeclave endorsements fetch` fetches them together",
)
_JSON = (
    ({"td_quote"}, *_ON_TDX),
    ({"message", "signature"}, *_TPM_QUOTE),
    ({"tpm_quote"}, *_TPM_QUOTE),
    ({"tcbInfo"}, *_COLLATERAL),
    ({"enclaveIdentity"}, *_COLLATERAL),
)
"""Names in a JSON that say what it is, and what to do with it."""
_INCOMPLETE = EvidenceError(
    "incomplete-evidence",
    "the quote of the machine's vTPM is missing or cannot be read: nothing says what runs in the machine, or for whom",
    advice="give both in one file, as docs/evidence-amd-tpm.md says, or as the attestation agents of Confidential "
    "Containers do",
)


def appraise_hcl_report(data: bytes, policy: Policy | None, now: int, endorsements: Endorsements) -> Outcome | None:
    """The half of an Azure confidential VM's evidence that its paravisor gives, refused for what is missing; None if it
    is something else.
    """
    found = next((each for each in contents(data) if is_hcl_report(each.data)), None)
    if found is None:
        return None
    kind = azure_cvm.KIND
    known = endorsements.also(endorsements_in(data, kind.endorsement_types))
    pinned = vendor_anchors(kind) if policy is None else [each for each in policy.anchors if each.kind == kind.name]
    platform: PlatformEvidence | None = None
    try:
        platform, _ = azure_cvm.verify_hcl_report(found.data, known, pinned, now)
        said = f"{platform.anchor.name or 'a test root'}; it names the vTPM's key {platform.platform_instance.hex()}"
        verdict = Verdict("platform", "passed", said)
    except EvidenceError as error:
        if error.code == "unknown-platform":
            return None
        verdict = Verdict("platform", "failed", "not verified", error)
    what = ", in ".join(filter(None, ("HCL report of an Azure confidential VM", found.how)))
    verdicts = (verdict, Verdict("quote", "failed", "missing", _INCOMPLETE))
    return Outcome(what, verdicts, Explanation((), platform, None), policy is not None, now)


def not_readable(data: bytes, file: Path) -> ConfigurationError:
    """`not-readable`, for what is no evidence and no part of it."""
    what, advice = _instead(data)
    return ConfigurationError(
        "not-readable", what, where="standard input" if file == STANDARD_INPUT else str(file), advice=advice
    )


def is_result(data: bytes) -> bool:
    """Whether it is meant as a sealed result."""
    try:
        return cose.parse(data).protected.get(cose.TYP) == RESULT.media_type
    except cose.SignatureError:
        return False


def _instead(data: bytes) -> tuple[str, str]:
    if not data:
        return "the file is empty", "name a file that holds a quote, report, evidence, result or token"
    if token_in(data) is not None:
        return "a token, which is no evidence", "use `edgeclave verify --issuer URL --jwks FILE --policy FILE`"
    if is_result(data):
        return "a sealed result, which is no evidence", "use `edgeclave verify --evidence FILE --policy FILE`"
    if found := endorsements_in(data, endorsement_types().values()):
        titles = ", ".join(sorted({endorsement_types()[each.type].title for each in found}))
        return f"endorsements, not evidence: {titles}", "import it (`edgeclave endorsements import`), or --endorsements"
    inner = [each.data for each in contents(data)]
    if any(is_hcl_report(each) for each in inner):
        return _ON_TDX
    for names, what, advice in _JSON:
        if names <= _names(data):
            return what, advice
    if any(QUOTE_HEAD in each[: 2 * MAX_SIGNATURE_BYTES] for each in inner):
        return _TPM_QUOTE
    if any(len(each) == _TD_REPORT_BYTES and each[:1] == _TD_REPORT_TYPE for each in inner):
        return "a TD report, which only its own machine can verify", "have that machine make a quote of it"
    if any(read_signed(each) for each in inner):
        return "certificates or revocation lists, not evidence", "a quote inside a certificate is not looked for"
    return (
        "neither a quote or report of a platform this release knows, nor evidence, a sealed result or a token",
        f"{_FORMS}; that of an Azure confidential VM has its parts in one file (docs/evidence-amd-tpm.md)",
    )


def _names(data: bytes) -> set[str]:
    try:
        return set(msgspec.json.decode(data, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return set()
