"""What a quote needs of its vendor, and who is asked for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from edgeclave.cloud.vendor_services import amd, intel
from edgeclave.cloud.vendor_services.https import VendorService
from edgeclave.errors import EvidenceError
from edgeclave.evidence import azure_cvm
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.azure_cvm_files import read_json
from edgeclave.evidence.collection import decode_collection
from edgeclave.evidence.endorsements import Endorsement
from edgeclave.evidence.hcl_report import is_hcl_report, parse_hcl_report
from edgeclave.evidence.intel import SGX_TEE, TDX_TEE, platform_of
from edgeclave.evidence.kinds import KINDS, detect, kind_of
from edgeclave.evidence.sev_snp_report import Product, Report, SigningKey, parse_report
from edgeclave.evidence.wrapped_files import contents


@dataclass(frozen=True)
class Authority:
    """What stands above the VCEKs or VLEKs of an AMD product."""

    product: Product
    kind: SigningKey


Wanted = intel.Platform | Report | Authority


def wanted_by(data: bytes) -> Wanted:
    """What a file of evidence, or a raw quote or report, needs.

    Raises:
        EvidenceError: `malformed-quote`, `no-service`, `not-evidence`.
    """
    for content in contents(data):
        if is_hcl_report(content.data):
            return parse_report(parse_hcl_report(content.data).report)
        found = _quote(content.data)
        if found is not None:
            return _wanted(*found)
    raise EvidenceError(
        "not-evidence",
        "neither a quote or report of a platform this release knows, nor evidence",
        advice="give what `edgeclave verify` takes",
    )


def _quote(data: bytes) -> tuple[str, bytes] | None:
    try:
        item = decode_collection(data).platform
    except EvidenceError:
        return detect(data)
    kind = kind_of(item.media_type)
    return None if kind is None else (kind, item.value)


def _wanted(kind: str, quote: bytes) -> Wanted:
    if kind == "sgx":
        return intel.Platform("sgx", *platform_of(quote, SGX_TEE))
    if kind == "tdx":
        return intel.Platform("tdx", *platform_of(quote, TDX_TEE))
    if kind == "sev-snp":
        return parse_report(quote)
    if kind == "azure-cvm":
        hcl_report = read_json(quote)[0] if quote.lstrip()[:1] == b"{" else azure_cvm.decode_quote(quote).hcl_report
        return parse_report(parse_hcl_report(hcl_report).report)
    raise EvidenceError(
        "no-service",
        f"no service publishes endorsements of the {KINDS[kind].title}",
        advice="ask whoever certified its key, and run `edgeclave endorsements import FILE`",
    )


async def fetch(
    wanted: Sequence[Wanted],
    anchors: Mapping[str, Sequence[Anchor]],
    now: int,
    progress: Callable[[str], None],
    *,
    url: str | None = None,
    ca: Path | None = None,
) -> list[Endorsement]:
    """All that is wanted, or nothing: what could not be verified raises.

    Args:
        anchors: roots of `intel` and `amd`.
        now: s since 1970.
        progress: is told what is fetched next.
        url, ca: a cache or mirror instead of the vendor, and its certificates; see `VendorService`.

    Raises:
        EdgeclaveError: of `VendorService`, `fetch_collateral`, `fetch_authority`, `fetch_for_report`.
    """
    found: list[Endorsement] = []
    async with AsyncExitStack() as stack:

        async def service(address: str) -> VendorService:
            return await stack.enter_async_context(VendorService(address, ca))

        for each in wanted:
            if isinstance(each, intel.Platform):
                progress(f"Asking for collateral of {each.tee.upper()} platforms {each.fmspc} ({each.ca} CA) ...")
                asked = await service(intel.without_path(url) if url else intel.SERVICE)
                lists = None if url else await service(intel.ROOT_LIST_SERVICE)
                found.append(await intel.fetch_collateral(asked, lists, each, anchors["intel"], now))
            elif isinstance(each, Authority):
                progress(f"Asking for the chain and revocation list of {each.kind}s of {each.product} ...")
                asked = await service(url or amd.SERVICE)
                found += await amd.fetch_authority(asked, each.product, each.kind, anchors["amd"], now)
            else:
                progress(f"Asking for the {each.signing_key}'s certificates ...")
                found += await amd.fetch_for_report(await service(url or amd.SERVICE), each, anchors["amd"], now)
    return list({(each.type, each.digest): each for each in found}.values())
