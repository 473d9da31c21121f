"""Intel TDX: a DCAP quote about a whole guest. Its runtime is MRTD and all four RTMRs.

One anchor lies in class `tdx` where the guest holds nothing but the enclave, or in `shared-guest` where root in the
guest is trusted; which of the two the measured image is, only whoever made it can say.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeclave.evidence import intel
from edgeclave.evidence.anchors import Anchor, PlatformEvidence
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.tee import Kind

MEDIA_TYPE = "application/edgeclave-tdx-quote"
MAX_PADDING_BYTES = 256  # zeros behind the quote in the fixed buffer that some quoting services return
_REGISTERS = {
    "mrtd": ("mr_td", 48),
    "rtmr0": ("rt_mr0", 48),
    "rtmr1": ("rt_mr1", 48),
    "rtmr2": ("rt_mr2", 48),
    "rtmr3": ("rt_mr3", 48),
    "mrconfigid": ("mr_config_id", 48),
    "mrowner": ("mr_owner", 48),
    "mrownerconfig": ("mr_owner_config", 48),
    "mrseam": ("mr_seam", 48),
    "mrservicetd": ("mr_service_td", 48),
    "tdattributes": ("td_attributes", 8),
    "xfam": ("xfam", 8),
}


def verify(quote: bytes, endorsements: Endorsements, anchors: Sequence[Anchor], now: int) -> PlatformEvidence:
    """See `tee.VerifyQuote`."""
    verified = intel.verify(quote, intel.TDX_TEE, endorsements, anchors, now)
    report = {name: bytes.fromhex(value) for name, value in verified.report.items() if isinstance(value, str)}
    return PlatformEvidence(
        verified.anchor,
        verified.platform_instance,
        {name: report[source] for name, (source, _) in _REGISTERS.items() if source in report},
        report["report_data"],
        bool(report["td_attributes"][0]),  # the whole byte TUD: debug and profiling
        verified.tcb,
        {**verified.details, "tee_tcb_svn": verified.report["tee_tcb_svn"]},
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
    registers={name: size for name, (_, size) in _REGISTERS.items()},
    identifying=(frozenset({"mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"}),),
    roots=intel.ROOTS,
    endorsement_types=(intel.COLLATERAL,),
    trim=trim,
)
