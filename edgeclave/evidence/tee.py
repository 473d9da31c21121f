"""What the file of one TEE says of itself, so that everything else can be the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgeclave.evidence.anchors import Anchor, Measurement, PlatformClass, PlatformEvidence, PublicKey
from edgeclave.evidence.endorsements import Endorsements, EndorsementType

VerifyQuote = Callable[[bytes, Endorsements, Sequence[Anchor], int], PlatformEvidence]
"""(quote, endorsements, anchors of the kind, now in s since 1970) -> what the platform says, or EvidenceError.

It refuses whatever is not signed up to one of the anchors with endorsements valid at `now`, and anything but the exact
bytes of one quote. It decides nothing else: class, TCB status, debug and runtime are for the policy.
"""

INTEGER = 0


@dataclass(frozen=True)
class Kind:
    """One kind of evidence.

    Args:
        name: as policies name it: `sgx`.
        title: as people name it: `Intel SGX`.
        media_type: of its quotes inside an evidence collection.
        classes: what its anchors may lie in; test roots lie in `emulated` and need not be named here.
        usual_class: of raw quotes that are described without a policy, where there are several.
        verify: see `VerifyQuote`.
        looks_like: whether these bytes are a quote of this kind, as far as a glance can tell. Trusts nothing.
        registers: what `PlatformEvidence.runtime` holds: name to size in bytes, or INTEGER.
        identifying: sets of registers; a reference value must name all of at least one, or it would name no code.
        roots: built-in vendor roots: name to SHA-256 of the SubjectPublicKeyInfo.
        pins: which keys a policy may pin as a real anchor; None where only the vendor's roots vouch.
        endorsement_types: what `verify` looks up, and what evidence of this kind may carry.
        this_release: the measurement of the installed release, where that can be computed.
        revoked_by: the type of endorsement that says which platforms were revoked; None where nobody publishes that.
        trim: the quote that a raw file holds, without what stands behind it, or from text; evidence holds it plainly.
    """

    name: str
    title: str
    media_type: str
    classes: frozenset[PlatformClass]
    verify: VerifyQuote
    looks_like: Callable[[bytes], bool]
    registers: Mapping[str, int]
    identifying: tuple[frozenset[str], ...]
    roots: Mapping[str, bytes] = field(default_factory=dict)
    pins: Callable[[PublicKey], bool] | None = None
    endorsement_types: tuple[EndorsementType, ...] = ()
    this_release: Callable[[], Measurement] | None = None
    usual_class: PlatformClass | None = None
    revoked_by: EndorsementType | None = None
    trim: Callable[[bytes], bytes] = lambda quote: quote
