"""`edgeclave endorsements fetch`: the only command that asks a vendor, and only when it is called."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from rich.console import Console

from edgeclave.cli.appraising import vendor_anchors
from edgeclave.cli.verify_inputs import read_input
from edgeclave.cloud.vendor_services import intel
from edgeclave.cloud.vendor_services.wanted import Authority, Wanted, fetch, wanted_by
from edgeclave.errors import ConfigurationError, EvidenceError
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.endorsements import Endorsement
from edgeclave.evidence.kinds import KINDS
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.sev_snp_report import PRODUCTS

VENDORS = {"intel": ("sgx", "tdx"), "amd": ("sev-snp", "azure-cvm")}
"""The kinds whose roots are a vendor's."""


def fetch_endorsements(
    files: list[Path],
    sgx_fmspc: list[str],
    tdx_fmspc: list[str],
    amd_products: list[str],
    policy: Policy | None,
    url: str | None,
    ca: Path | None,
) -> list[Endorsement]:
    """Asks for everything that is named, with a line of progress; stores nothing.

    Raises:
        ConfigurationError: `nothing-wanted`, `bad-fmspc`, `unknown-product`, `bad-url`, `no-such-file`.
        EdgeclaveError: of the service and of what it sent.
    """
    wanted: list[Wanted] = [_wanted_by(file) for file in files]
    wanted += [intel.Platform("sgx", fmspc, ca) for fmspc in sgx_fmspc for ca in intel.CAS]
    wanted += [intel.Platform("tdx", fmspc, ca) for fmspc in tdx_fmspc for ca in intel.CAS]
    for name in amd_products:
        product = next((each for each in PRODUCTS if each.lower() == name.lower()), None)
        if product is None:
            raise ConfigurationError(
                "unknown-product", f"no product {name!r}", where="--amd-product", advice=f"use {', '.join(PRODUCTS)}"
            )
        wanted += [Authority(product, "VCEK"), Authority(product, "VLEK")]
    if not wanted:
        raise ConfigurationError(
            "nothing-wanted",
            "nothing says whose endorsements to fetch",
            where="edgeclave endorsements fetch",
            advice="name files of evidence, or --sgx-fmspc, --tdx-fmspc, --amd-product",
        )
    console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    anchors = {vendor: _anchors(kinds, policy) for vendor, kinds in VENDORS.items()}
    with console.status("") as status:
        return asyncio.run(fetch(wanted, anchors, int(time.time()), status.update, url=url, ca=ca))


def _wanted_by(file: Path) -> Wanted:
    data = read_input(file)
    try:
        return wanted_by(data)
    except EvidenceError as error:
        raise EvidenceError(error.code, error.what, where=str(file), advice=error.advice) from error


def _anchors(kinds: tuple[str, ...], policy: Policy | None) -> list[Anchor]:
    """The roots that the policy names for these kinds; the vendor's without a policy."""
    if policy is not None:
        return [anchor for anchor in policy.anchors if anchor.kind in kinds]
    return list({each.fingerprint: each for kind in kinds for each in vendor_anchors(KINDS[kind])}.values())
