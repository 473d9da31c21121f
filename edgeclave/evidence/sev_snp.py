"""AMD SEV-SNP: a guest's attestation report, verified up to a root key of AMD.

Rules, all of them always:

1. the report is exactly one of the known versions (`sev_snp_report`);
2. the VCEK or VLEK for exactly its chip and TCB chains to an anchor (`amd_certificates`), and is of the kind and the
   product that the report names;
3. the report is signed by that key: ECDSA on P-384 with SHA-384;
4. REPORTED_TCB and CHIP_ID are those of the certificate. A VLEK names no chip;
5. no migration agent may be associated: it could read the guest's memory.

What is measured, for reference values: MEASUREMENT, VMPL and the other identities that the owner of the guest gave it,
and every component of the TCB, reported and at launch, so that a policy sets floors (`minimum_microcode = 115`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from edgeclave import cose
from edgeclave.errors import EvidenceError
from edgeclave.evidence.amd_certificates import ROOTS, EndorsementKey, verify_chain
from edgeclave.evidence.amd_endorsements import ENDORSEMENT_KEY, REVOCATION_LIST, TYPES, key_subject
from edgeclave.evidence.anchors import Anchor, Measurement, PlatformEvidence
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.sev_snp_report import Report, from_hex, is_report, parse_report, read_tcb
from edgeclave.evidence.tee import INTEGER, Kind

MEDIA_TYPE = "application/vnd.amd.sev.snp.attestation-report"
REGISTERS = {
    "measurement": 48,
    "vmpl": INTEGER,
    "guest_svn": INTEGER,
    "host_data": 32,
    "family_id": 16,
    "image_id": 16,
    "id_key_digest": 48,
    "author_key_digest": 48,
    **{
        f"{when}{name}": INTEGER
        for when in ("", "launch_")
        for name in ("bootloader", "tee", "snp", "microcode", "fmc")
    },
}
_MASKED_CHIP_ID = bytes(64)


@dataclass(frozen=True)
class VerifiedReport:
    """A report whose signature and certificates verified."""

    report: Report
    endorsed_by: EndorsementKey

    @property
    def platform_instance(self) -> bytes:
        """The chip id (64 bytes, 8 on Turin). Providers that use a VLEK may mask it: then what only their platforms
        have in common, the SHA-256 of dCBOR ["edgeclave/sev-snp-provider/1", provider].
        """
        said, chip_id = self.endorsed_by.said, self.report.chip_id
        if said.chip_id is not None:
            return said.chip_id
        if chip_id != _MASKED_CHIP_ID:
            return chip_id
        return cose.sha256(cose.dcbor(["edgeclave/sev-snp-provider/1", said.provider]))

    @property
    def runtime(self) -> Measurement:
        report, product = self.report, self.endorsed_by.said.product
        measured: dict[str, bytes | int] = {
            "measurement": report.measurement,
            "vmpl": report.vmpl,
            "guest_svn": report.guest_svn,
            "host_data": report.host_data,
            "family_id": report.family_id,
            "image_id": report.image_id,
            "id_key_digest": report.id_key_digest,
            "author_key_digest": report.author_key_digest,
        }
        for when, raw in (("", report.reported_tcb), ("launch_", report.launch_tcb)):
            for name, version in read_tcb(raw, product)._asdict().items():
                if version is not None:
                    measured[when + name] = version
        return measured

    @property
    def details(self) -> dict[str, str | int]:
        report, said = self.report, self.endorsed_by.said
        return {
            "product": said.product,
            "report version": report.version,
            "signed by": self.endorsed_by.kind if said.provider is None else f"VLEK of {said.provider}",
            "reported TCB": str(read_tcb(report.reported_tcb, said.product)),
            "guest policy": f"{report.policy.raw:#x}",
            "chip id": "masked by the host" if report.chip_id == _MASKED_CHIP_ID else report.chip_id.hex(),
            "revocation list": "checked" if self.endorsed_by.revocation_checked else "none at hand",
        }


def verify_report(data: bytes, endorsements: Endorsements, anchors: Sequence[Anchor], now: int) -> VerifiedReport:
    """Args:
        data: the report, 1184 bytes.
        endorsements: where VCEK or VLEK, ASK or ASVK, ARK and revocation list are looked for.
        anchors: root keys of AMD.
        now: s since 1970.

    Raises:
        EvidenceError: `malformed-quote`, `bad-quote-signature`, `endorsement-mismatch`, `chip-id-masked`,
            `migration-agent`, and those of
            `amd_certificates.verify_chain`.
    """
    report = parse_report(data)
    if report.signing_key == "VCEK" and report.chip_id == _MASKED_CHIP_ID:
        raise EvidenceError(
            "chip-id-masked",
            "the host masks the chip id, so that the report names no chip",
            advice="ask the platform's operator to clear MASK_CHIP_ID",
        )
    found = endorsements.find(ENDORSEMENT_KEY, key_subject(report), now)
    others = [
        each
        for each in endorsements.candidates(ENDORSEMENT_KEY, found.subject)
        if each.not_before <= now <= each.not_after and each != found
    ]
    # A VLEK does not say for which of a provider's regions it is; a VCEK may be there under a test root, too.
    refusal: EvidenceError | None = None
    for each in (found, *others):
        try:
            key = verify_chain(each.value, endorsements, anchors, now)
            check_report(report, key)
        except EvidenceError as error:
            refusal = refusal or error
            continue
        return VerifiedReport(report, key)
    assert refusal is not None
    raise refusal


def check_report(report: Report, key: EndorsementKey) -> None:
    """That this key signed the report, and that its certificate is about the platform which the report names.

    Raises:
        EvidenceError: `bad-quote-signature`, `endorsement-mismatch`, `migration-agent`.
    """
    r, s = report.signature
    try:
        key.key.verify(encode_dss_signature(r, s), report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise EvidenceError(
            "bad-quote-signature",
            f"the report is not signed by the {key.kind}",
            advice="do not use it; it was altered, or is of another platform",
        ) from error
    said = key.said
    if report.signing_key != key.kind:
        raise _mismatch(f"it says that a {report.signing_key} signed it, and it was a {key.kind}")
    if report.cpuid is not None and report.product != said.product:
        raise _mismatch(f"it is by {report.product or 'an unknown product'}, the {key.kind} is for {said.product}")
    if report.reported_tcb != said.tcb:
        reported, endorsed = (read_tcb(raw, said.product) for raw in (report.reported_tcb, said.tcb))
        raise _mismatch(f"its TCB is {reported}, the {key.kind} is for {endorsed}")
    if said.chip_id is not None and report.chip_id != said.chip_id.ljust(len(_MASKED_CHIP_ID), b"\0"):
        raise _mismatch(f"it is by chip {report.chip_id.hex()}, the {key.kind} is for {said.chip_id.hex()}")
    if report.policy.migration_agent_allowed:
        raise EvidenceError(
            "migration-agent",
            "the guest policy lets a migration agent read the guest's memory",
            advice="launch the guest without MIGRATE_MA",
        )


def _verify(quote: bytes, endorsements: Endorsements, anchors: Sequence[Anchor], now: int) -> PlatformEvidence:
    verified = verify_report(quote, endorsements, anchors, now)
    return PlatformEvidence(
        anchor=verified.endorsed_by.anchor,
        platform_instance=verified.platform_instance,
        runtime=verified.runtime,
        report_data=verified.report.report_data,
        debug=verified.report.policy.debug_allowed,
        revocation_checked=verified.endorsed_by.revocation_checked,
        details=verified.details,
    )


def _mismatch(what: str) -> EvidenceError:
    return EvidenceError(
        "endorsement-mismatch",
        f"the report is not the one that was endorsed: {what}",
        advice="fetch the VCEK for exactly this chip and TCB from AMD's key server",
    )


KIND = Kind(
    name="sev-snp",
    title="AMD SEV-SNP",
    media_type=MEDIA_TYPE,
    classes=frozenset({"sev-snp", "shared-guest"}),
    usual_class="sev-snp",
    verify=_verify,
    looks_like=is_report,
    trim=from_hex,
    registers=REGISTERS,
    identifying=(frozenset({"measurement", "vmpl"}),),
    roots=ROOTS,
    endorsement_types=TYPES,
    revoked_by=REVOCATION_LIST,
)
