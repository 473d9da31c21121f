"""Intel SGX: a DCAP quote about one enclave. Its runtime is MRENCLAVE, or MRSIGNER, ISVPRODID and ISVSVN.

The report is sgx_report_body_t of the Intel SGX SDK, 384 bytes, little-endian.
"""

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
    report = verified.report
    runtime: Measurement = {
        "mrenclave": report[64:96],
        "mrsigner": report[128:160],
        "isvprodid": int.from_bytes(report[256:258], "little"),
        "isvsvn": int.from_bytes(report[258:260], "little"),
        "configid": report[192:256],
        "configsvn": int.from_bytes(report[260:262], "little"),
        "isvextprodid": report[32:48],
        "isvfamilyid": report[304:320],
    }
    return PlatformEvidence(
        verified.anchor,
        verified.platform_instance,
        runtime,
        report[320:384],
        bool(report[48] & _DEBUG),
        verified.tcb,
        details=verified.details,
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
    revoked_by=intel.COLLATERAL,
)
