"""The one table of evidence kinds. A TEE is added by a file next to this one and a row here (docs/adding-a-tee.md)."""

from __future__ import annotations

from edgeclave.evidence import azure_cvm, emulator, sev_snp, sgx, tdx, tpm
from edgeclave.evidence.endorsements import EndorsementType
from edgeclave.evidence.tee import Kind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (emulator.KIND, sgx.KIND, tdx.KIND, sev_snp.KIND, azure_cvm.KIND, tpm.KIND, tpm.CERTIFIED_KIND)
}


def kind_of(media_type: str) -> str | None:
    """The kind whose quotes have this media type: says which verifier to ask, nothing about trust."""
    return next((name for name, kind in KINDS.items() if kind.media_type == media_type), None)


def detect(data: bytes) -> tuple[str, bytes] | None:
    """Kind and quote of a raw file, told from its bytes: says which verifier to ask, nothing about trust."""
    for name, kind in KINDS.items():
        quote = kind.trim(data)
        if kind.looks_like(quote):
            return name, quote
    return None


def endorsement_types() -> dict[str, EndorsementType]:
    """All types that any kind uses, by name."""
    return {each.name: each for kind in KINDS.values() for each in kind.endorsement_types}
