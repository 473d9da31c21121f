"""Intel SGX: a DCAP quote about one enclave. Its runtime is MRENCLAVE, or MRSIGNER, ISVPRODID and ISVSVN."""

from __future__ import annotations

from collections.abc import Sequence

from edgeclave.evidence import intel
from edgeclave.evidence.anchors import Anchor, Measurement, PlatformEvidence
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.tee import INTEGER, Kind

MEDIA_TYPE = "application/edgeclave-sgx-quote"
_DEBUG = 0x02  # of ATTRIBUTES.FLAGS, Intel SDM volume 3D section 37.7.1


def verify(quote: bytes, endorsements: Endorsements, anchors: Sequence[Anchor], now: int) -> PlatformEvidence:
    """See `tee.VerifyQuote`."""
    verified = intel.verify(quote, intel.SGX_TEE, endorsements, anchors, now)
    report = {name: bytes.fromhex(value) for name, value in verified.report.items() if isinstance(value, str)}
    runtime: Measurement = {
        "mrenclave": report["mr_enclave"],
        "mrsigner": report["mr_signer"],
        "isvprodid": verified.report["isv_prod_id"],
        "isvsvn": verified.report["isv_svn"],
        # What dcap-qvl calls reserved holds the fields of key separation and sharing (sgx_report_body_t).
        "configid": report["reserved3"][32:],
        "configsvn": int.from_bytes(report["reserved4"][:2], "little"),
        "isvextprodid": report["reserved1"][12:],
        "isvfamilyid": report["reserved4"][44:],
    }
    return PlatformEvidence(
        verified.anchor,
        verified.platform_instance,
        runtime,
        report["report_data"],
        bool(report["attributes"][0] & _DEBUG),
        verified.tcb,
        {**verified.details, "attributes": verified.report["attributes"]},
    )


KIND = Kind(
    name="sgx",
    title="Intel SGX",
    media_type=MEDIA_TYPE,
    classes=frozenset({"sgx"}),
    verify=verify,
    looks_like=lambda quote: intel.looks_like(quote, intel.SGX_TEE),
    registers={
        "mrenclave": 32,
        "mrsigner": 32,
        "isvprodid": INTEGER,
        "isvsvn": INTEGER,
        "configid": 64,
        "configsvn": INTEGER,
        "isvextprodid": 16,
        "isvfamilyid": 16,
    },
    identifying=(frozenset({"mrenclave"}), frozenset({"mrsigner", "isvprodid", "isvsvn"})),
    roots=intel.ROOTS,
    endorsement_types=(intel.COLLATERAL,),
)
