"""Azure confidential VM on AMD SEV-SNP: report of the paravisor, its runtime data, and a quote of its vTPM.

Rules, all of them always:

1. the SEV-SNP report of the paravisor verifies (`sev_snp`), and its VMPL is 0, where nothing but the paravisor runs;
2. the first half of its report data is the digest of the runtime data, the second half is zeros;
3. the runtime data name the attestation key of the vTPM (HCLAkPub), and the quote verifies with it (`tpm`).

A guest cannot put words into the report: it reaches the report only through the vTPM, so extraData of the quote is what
binds an EAT, the first 32 bytes of its report data. Root in such a general-purpose guest is trusted: the class is
`shared-guest`, unless the anchor says that the whole guest is measured.

The quote is a dCBOR map, in exactly one form: { "hcl_report": bytes, "quote": the map of kind `tpm` }. A file may also
hold the JSON of the attestation agents of Confidential Containers (`azure_cvm_files`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa
from msgspec import Meta

from edgeclave import cose
from edgeclave.errors import EvidenceError
from edgeclave.evidence import sev_snp, tpm
from edgeclave.evidence.amd_certificates import ROOTS
from edgeclave.evidence.amd_endorsements import REVOCATION_LIST, TYPES
from edgeclave.evidence.anchors import Anchor, PlatformEvidence, key_fingerprint
from edgeclave.evidence.azure_cvm_files import read_json
from edgeclave.evidence.endorsements import Endorsements, read_any
from edgeclave.evidence.hcl_report import MAX_HCL_REPORT_BYTES, attestation_key, malformed, parse_hcl_report
from edgeclave.evidence.tee import Kind
from edgeclave.wire import from_map, to_map

MEDIA_TYPE = "application/edgeclave-azure-cvm-quote+cbor"
MAX_LEADING_SPACES = 16  # before the JSON of a file
_PARAVISOR_VMPL = 0


class Quote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`hcl_report` is what the vTPM's NV index 0x01400001 holds; `quote` is by the key it names."""

    hcl_report: Annotated[bytes, Meta(max_length=MAX_HCL_REPORT_BYTES)]
    quote: tpm.Quote


def encode_quote(quote: Quote) -> bytes:
    """Raises EvidenceError `malformed-quote`, if nobody would accept it."""
    try:
        return cose.dcbor(to_map(quote))
    except msgspec.ValidationError as error:
        raise malformed(str(error)) from error


def decode_quote(data: bytes) -> Quote:
    """Takes it apart, unverified.

    Raises:
        EvidenceError: `malformed-quote`.
    """
    try:
        return from_map(cose.load_dcbor(data), Quote)
    except (msgspec.ValidationError, cose.SignatureError) as error:
        raise malformed(str(error)) from error


def verify_hcl_report(
    data: bytes, endorsements: Endorsements, anchors: Sequence[Anchor], now: int
) -> tuple[PlatformEvidence, rsa.RSAPublicKey]:
    """Rules 1 and 2: what the paravisor says of the machine, and the attestation key of its vTPM.

    Nothing in it is about what runs in the guest or about anyone's question, so alone it is never enough.

    Raises:
        EvidenceError: those of `sev_snp.verify_report`, `wrong-runtime-data`.
    """
    hcl = parse_hcl_report(data)
    verified = sev_snp.verify_report(hcl.report, endorsements, anchors, now)
    report = verified.report
    if report.report_data != hcl.runtime_data_digest.ljust(len(report.report_data), b"\0"):
        raise EvidenceError(
            "wrong-runtime-data",
            "the report is not about these runtime data",
            advice="do not use it; report and runtime data were put together by someone else",
        )
    if report.vmpl != _PARAVISOR_VMPL:
        raise malformed(f"the report was made at VMPL {report.vmpl}, where it is not the paravisor's")
    key = attestation_key(hcl.runtime_data)
    platform = PlatformEvidence(
        anchor=verified.endorsed_by.anchor,
        platform_instance=key_fingerprint(key),
        runtime=verified.runtime,
        report_data=report.report_data,
        debug=report.policy.debug_allowed,
        revocation_checked=verified.endorsed_by.revocation_checked,
        details=verified.details,
    )
    return platform, key


def _verify(data: bytes, endorsements: Endorsements, anchors: Sequence[Anchor], now: int) -> PlatformEvidence:
    if data[:MAX_LEADING_SPACES].lstrip()[:1] == b"{":
        hcl_report, tpm_quote, certificate = read_json(data)
        endorsements = endorsements.also(read_any(certificate, TYPES))
    else:
        decoded = decode_quote(data)
        hcl_report, tpm_quote = decoded.hcl_report, decoded.quote
    platform, key = verify_hcl_report(hcl_report, endorsements, anchors, now)
    quoted = tpm.verify_quote(tpm_quote, key)
    return replace(
        platform,
        runtime={**platform.runtime, **quoted.runtime},
        report_data=quoted.report_data,
        details={**platform.details, **quoted.details},
    )


def _looks_like(data: bytes) -> bool:
    try:
        if data[:MAX_LEADING_SPACES].lstrip()[:1] == b"{":
            read_json(data)
        else:
            decode_quote(data)
    except EvidenceError:
        return False
    return True


KIND = Kind(
    name="azure-cvm",
    title="Azure confidential VM",
    media_type=MEDIA_TYPE,
    classes=frozenset({"shared-guest", "sev-snp"}),
    usual_class="shared-guest",
    verify=_verify,
    looks_like=_looks_like,
    registers={**sev_snp.REGISTERS, **tpm.REGISTERS},
    identifying=tuple(frozenset({"measurement"}) | pcrs for pcrs in tpm.CODE_PCRS),
    roots=ROOTS,
    endorsement_types=TYPES,
    revoked_by=REVOCATION_LIST,
)
