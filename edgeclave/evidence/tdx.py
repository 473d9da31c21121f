"""Intel TDX: a DCAP quote about a whole guest. Its runtime is MRTD and all four RTMRs.

The report is TD report 1.0 (584 bytes) or 1.5 (648 bytes, which begins with 1.0), as the quote holds it.

One anchor lies in class `tdx` where the guest holds nothing but the enclave, or in `shared-guest` where root in the
guest is trusted; which of the two the measured image is, only whoever made it can say.

A migratable TD may be moved to another platform by a migration TD that its host chose. dcap-qvl refuses it, so that no
policy can accept one.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeclave.evidence import intel
from edgeclave.evidence.anchors import Anchor, PlatformEvidence
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.tee import Kind

MEDIA_TYPE = "application/edgeclave-tdx-quote"
MAX_PADDING_BYTES = 8 << 10  # zeros behind the quote in the fixed buffer that quoting services and drivers return
_TD_ATTRIBUTES, _REPORT_DATA = 120, slice(520, 584)
_REGISTERS = {
    "mrtd": slice(136, 184),
    "rtmr0": slice(328, 376),
    "rtmr1": slice(376, 424),
    "rtmr2": slice(424, 472),
    "rtmr3": slice(472, 520),
    "mrconfigid": slice(184, 232),
    "mrowner": slice(232, 280),
    "mrownerconfig": slice(280, 328),
    "mrseam": slice(16, 64),
    "mrservicetd": slice(600, 648),  # of TD report 1.5
    "tdattributes": slice(_TD_ATTRIBUTES, 128),
    "xfam": slice(128, 136),
}


def verify(quote: bytes, endorsements: Endorsements, anchors: Sequence[Anchor], now: int) -> PlatformEvidence:
    """See `tee.VerifyQuote`."""
    verified = intel.verify(quote, intel.TDX_TEE, endorsements, anchors, now)
    report = verified.report
    return PlatformEvidence(
        verified.anchor,
        verified.platform_instance,
        {name: report[place] for name, place in _REGISTERS.items() if place.stop <= len(report)},
        report[_REPORT_DATA],
        bool(report[_TD_ATTRIBUTES]),  # the whole byte TUD: debug and profiling
        verified.tcb,
        details={**verified.details, "tee_tcb_svn": report[:16].hex()},
    )


def trim(data: bytes) -> bytes:
    """The quote without the zeros that stand behind it in a file; evidence must hold it without."""
    size = intel.quote_size(data) if intel.looks_like(data, intel.TDX_TEE) else 0
    padding = data[size:]
    return data[:size] if size and len(padding) <= MAX_PADDING_BYTES and not any(padding) else data


KIND = Kind(
    name="tdx",
    title="Intel TDX",
    media_type=MEDIA_TYPE,
    classes=frozenset({"tdx", "shared-guest"}),
    verify=verify,
    looks_like=lambda quote: intel.looks_like(quote, intel.TDX_TEE),
    registers={name: place.stop - place.start for name, place in _REGISTERS.items()},
    identifying=(frozenset({"mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"}),),
    roots=intel.ROOTS,
    endorsement_types=(intel.COLLATERAL,),
    revoked_by=intel.COLLATERAL,
    trim=trim,
)
