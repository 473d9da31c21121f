"""The one table of evidence kinds. A TEE is added by a file next to this one and a row here.

A trust anchor names its kind; the kind says which media type its quotes have, which classes such an anchor may lie in,
and how a quote is verified against the anchors of that kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeclave.errors import EvidenceError
from edgeclave.evidence import emulator
from edgeclave.evidence.anchors import Anchor, PlatformClass, PlatformEvidence
from edgeclave.evidence.collection import Item
from edgeclave.evidence.runtime import runtime_digest

VerifyQuote = Callable[[bytes, Item | None, Sequence[Anchor], int], PlatformEvidence]
"""(quote, endorsements, anchors of the kind, now in s since 1970) -> what the platform says, or EvidenceError."""


@dataclass(frozen=True)
class Kind:
    """`this_release` gives the runtime reference value of the installed release, where that can be computed."""

    media_type: str
    classes: frozenset[PlatformClass]
    verify: VerifyQuote
    this_release: Callable[[], bytes] | None = None


def _verify_emulator(quote: bytes, endorsements: Item | None, anchors: Sequence[Anchor], now: int) -> PlatformEvidence:
    if endorsements is not None:
        raise EvidenceError("malformed-evidence", "the emulator has no endorsements")
    parsed, named = emulator.parse_quote(quote)
    anchor = next((anchor for anchor in anchors if anchor.thumbprint == named), None)
    if anchor is None:
        raise EvidenceError(
            "untrusted-anchor",
            "the quote is not by an emulator this policy knows",
            where=f"attestation key {named.hex()}",
            advice="pin the emulator's attestation key as an anchor, after making sure whose it is",
        )
    said = emulator.verify_quote(parsed, anchor.key)
    return PlatformEvidence(anchor, anchor.thumbprint, said.runtime_digest, said.report_data, said.debug)


KINDS: dict[str, Kind] = {
    "emulator": Kind(emulator.QUOTE.media_type, frozenset({"emulated"}), _verify_emulator, runtime_digest),
}


def kind_of(media_type: str) -> str | None:
    """The kind whose quotes have this media type: says which verifier to ask, nothing about trust."""
    return next((name for name, kind in KINDS.items() if kind.media_type == media_type), None)
