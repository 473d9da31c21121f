"""AMD's Key Distribution Service (KDS), and mirrors of it: what vouches for the keys that sign SEV-SNP reports.

    /vcek/v1/PRODUCT/cert_chain                   ASK and ARK, PEM; for ASVK and ARK below /vlek
    /vcek/v1/PRODUCT/crl                          what the ARK revoked, DER; the same below /vlek
    /vcek/v1/PRODUCT/CHIP?blSPL=..&teeSPL=..      the VCEK for exactly this chip and TCB, DER

The service learns which chip is asked about. A VLEK is not published: the guest has it from its host, in the
certificate table.

Source: AMD document 57230 (VCEK Certificate and KDS Interface Specification).
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeclave.cloud.vendor_services.https import VendorService, unexpected_answer
from edgeclave.errors import EdgeclaveError, EvidenceError
from edgeclave.evidence.amd_certificates import verify_authority, verify_chain
from edgeclave.evidence.amd_endorsements import ENDORSEMENT_KEY, REVOCATION_LIST, ROOT, SIGNING_KEY, key_subject
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.endorsements import Endorsement, Endorsements, read_any
from edgeclave.evidence.sev_snp_report import PRODUCTS, TURIN_CHIP_ID_BYTES, Product, Report, SigningKey, read_tcb

SERVICE = "https://kdsintf.amd.com"
_WITHOUT_CPUID: tuple[Product, ...] = ("Milan", "Genoa")  # Turin never made a report of version 2


async def fetch_authority(
    service: VendorService, product: Product, kind: SigningKey, anchors: Sequence[Anchor], now: int
) -> list[Endorsement]:
    """Root, signing key and revocation list of a product.

    Raises:
        EdgeclaveError: as `VendorService.get`.
        EvidenceError: as `verify_authority`, except `platform-revoked`: that must reach whoever verifies.
    """
    base = f"/{kind.lower()}/v1/{product}"
    chain = await service.get(f"{base}/cert_chain", f"certificate chain of {product}")
    revoked = await service.get(f"{base}/crl", f"revocation list of {product}")
    found = [*read_any(chain.body, (ROOT, SIGNING_KEY)), *read_any(revoked.body, (REVOCATION_LIST,))]
    if [each.type for each in found] != [ROOT.name, SIGNING_KEY.name, REVOCATION_LIST.name]:
        raise unexpected_answer(service.url, f"not the chain and the revocation list of {product}")
    try:
        verify_authority(product, kind, Endorsements(found), anchors, now)
    except EvidenceError as error:
        if error.code != "platform-revoked":
            raise
    return found


async def fetch_for_report(
    service: VendorService, report: Report, anchors: Sequence[Anchor], now: int
) -> list[Endorsement]:
    """All that a report needs; the VLEK of one that was signed by a VLEK has to be imported.

    Raises:
        EdgeclaveError: as `VendorService.get`.
        EvidenceError: as `verify_chain`, except `platform-revoked`; `chip-id-masked`.
    """
    if report.signing_key == "VCEK" and not any(report.chip_id):
        raise EvidenceError(
            "chip-id-masked", "the report names no chip", advice="ask the platform's operator to clear MASK_CHIP_ID"
        )
    products = _WITHOUT_CPUID if report.cpuid is None else [each for each in PRODUCTS if each == report.product]
    if not products:
        raise EvidenceError(
            "wrong-product", "the report is by a product that this release does not know", advice="update edgeclave"
        )
    if report.signing_key == "VLEK":
        return await fetch_authority(service, products[0], "VLEK", anchors, now)
    for product in products:
        try:
            key = await service.get(_key_path(report, product), f"VCEK of this chip and TCB on {product}")
        except EdgeclaveError as error:
            if error.code != "not-published" or product == products[-1]:
                raise
            continue
        break
    found = read_any(key.body, (ENDORSEMENT_KEY,))
    if [each.subject for each in found] != [key_subject(report)]:
        raise unexpected_answer(service.url, "not the VCEK of this chip and TCB")
    authority = await fetch_authority(service, product, "VCEK", anchors, now)
    certificates = [each for each in authority if each.type != REVOCATION_LIST.name]
    verify_chain(found[0].value, Endorsements(certificates), anchors, now)
    return [*found, *authority]


def _key_path(report: Report, product: Product) -> str:
    tcb = read_tcb(report.reported_tcb, product)
    chip = report.chip_id[:TURIN_CHIP_ID_BYTES] if product == "Turin" else report.chip_id
    versions = {"blSPL": tcb.bootloader, "teeSPL": tcb.tee, "snpSPL": tcb.snp, "ucodeSPL": tcb.microcode}
    if tcb.fmc is not None:
        versions = {"fmcSPL": tcb.fmc, **versions}
    query = "&".join(f"{name}={version:02}" for name, version in versions.items())
    return f"/vcek/v1/{product}/{chip.hex()}?{query}"
