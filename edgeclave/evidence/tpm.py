"""TPM 2.0: a quote of the PCRs by an attestation key (AK).

It tells what booted, and nothing of who reads the memory afterwards: root on the device can ask its TPM to quote
anything. So its only class is `boot-attested`, which no policy can call a TEE, whatever the claims say.

There are two kinds, because an AK that vouches for one device must never vouch for another AK: a TPM signs whatever
it is asked to that does not look like its own, so root could have a pinned AK issue a "certificate".

- `tpm`: the AK is pinned by the policy, after enrolment showed that it is a restricted signing key of a real TPM
  (TPM2_ActivateCredential);
- `tpm-certified`: the policy pins a certificate authority, whose certificate for the AK is an endorsement.

The quote is a dCBOR map, in exactly one form:

    { "key": SHA-256 of the AK's SubjectPublicKeyInfo, "attest": TPMS_ATTEST, "signature": TPMT_SIGNATURE,
      "pcrs": { index: value } }

with "certified_key" in place of "key" for kind `tpm-certified`, and with exactly the quoted PCRs, of the SHA-256 bank.
extraData is the first 32 bytes of the report data.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from edgeclave import cose
from edgeclave.errors import EvidenceError
from edgeclave.evidence.anchors import Anchor, Measurement, PlatformEvidence, PublicKey, key_fingerprint
from edgeclave.evidence.eat import REPORT_DATA_BYTES
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.tee import Kind
from edgeclave.evidence.tpm_certificates import TYPES, certified_key
from edgeclave.evidence.tpm_quote import (
    MAX_ATTEST_BYTES,
    MAX_SIGNATURE_BYTES,
    PCR_BYTES,
    PCRS,
    Attest,
    check_pcrs,
    is_attestation_key,
    malformed,
    parse_attest,
    verify_signature,
)
from edgeclave.wire import Digest, from_map, to_map

MEDIA_TYPE = "application/edgeclave-tpm-quote+cbor"
CERTIFIED_MEDIA_TYPE = "application/edgeclave-tpm-certified-quote+cbor"
REGISTERS = {f"pcr{index}": PCR_BYTES for index in range(PCRS)}
CODE_PCRS = (frozenset({"pcr4"}), frozenset({"pcr7", "pcr11"}))
"""What names code: the boot loader or unified kernel image itself; or who signed it, and then what it measured. PCR 11
alone is extended by software, which a foreign kernel can do as well.
"""

PcrIndex = Annotated[int, Meta(ge=0, lt=PCRS)]
PcrValue = Annotated[bytes, Meta(min_length=PCR_BYTES, max_length=PCR_BYTES)]


class Quote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What TPM2_Quote returned, and the values it is about; `key` names the AK."""

    key: Digest
    attest: Annotated[bytes, Meta(max_length=MAX_ATTEST_BYTES)]
    signature: Annotated[bytes, Meta(max_length=MAX_SIGNATURE_BYTES)]
    pcrs: dict[PcrIndex, PcrValue]


class CertifiedQuote(Quote, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same, told apart by its bytes alone."""

    key: Digest = msgspec.field(name="certified_key")


@dataclass(frozen=True)
class VerifiedQuote:
    """A quote whose signature verified under `key_digest`, and whose PCR values are those quoted."""

    key_digest: bytes
    attest: Attest
    pcrs: Mapping[int, bytes]

    @property
    def runtime(self) -> Measurement:
        return {f"pcr{index}": value for index, value in sorted(self.pcrs.items())}

    @property
    def report_data(self) -> bytes:
        """extraData with zeros up to 64 bytes, so that a quote about less than a whole digest matches no EAT."""
        return self.attest.extra_data.ljust(REPORT_DATA_BYTES, b"\0")

    @property
    def details(self) -> dict[str, str | int]:
        attest = self.attest
        return {
            "attestation key": self.key_digest.hex(),
            "TPM firmware": f"{attest.firmware_version:#018x}",
            "TPM clock": f"{attest.clock} ms{'' if attest.safe else ', may have gone back'}",
            "TPM resets": attest.reset_count,
            "TPM restarts": attest.restart_count,
        }


def encode_quote(quote: Quote) -> bytes:
    """Raises EvidenceError `malformed-quote`, if nobody would accept it."""
    try:
        return cose.dcbor(to_map(quote))
    except msgspec.ValidationError as error:
        raise malformed(str(error)) from error


def decode_quote(data: bytes, kind: type[Quote] = Quote) -> Quote:
    """Takes it apart, unverified.

    Raises:
        EvidenceError: `malformed-quote`.
    """
    try:
        return from_map(cose.load_dcbor(data), kind)
    except (msgspec.ValidationError, cose.SignatureError) as error:
        raise malformed(str(error)) from error


def verify_quote(quote: Quote, key: PublicKey) -> VerifiedQuote:
    """Checks it against one attestation key, whose fingerprint it must name.

    Raises:
        EvidenceError: `malformed-quote`, `bad-quote-signature`, `wrong-pcr-digest`.
    """
    if not hmac.compare_digest(quote.key, key_fingerprint(key)):
        raise malformed("it names another attestation key")
    if not is_attestation_key(key):
        raise malformed("the attestation key is too weak")
    used = verify_signature(quote.attest, quote.signature, key)
    attest = parse_attest(quote.attest)
    check_pcrs(attest, quote.pcrs, used)
    return VerifiedQuote(quote.key, attest, quote.pcrs)


def _verify_pinned(data: bytes, _: Endorsements, anchors: Sequence[Anchor], __: int) -> PlatformEvidence:
    quote = decode_quote(data)
    anchor = next((anchor for anchor in anchors if anchor.fingerprint == quote.key), None)
    if anchor is None or isinstance(anchor.key, bytes):
        raise EvidenceError(
            "untrusted-anchor",
            "the quote is not by a TPM this policy knows",
            where=f"attestation key {quote.key.hex()}",
            advice="pin the TPM's attestation key as an anchor, after enrolling it with TPM2_ActivateCredential",
        )
    return _platform(verify_quote(quote, anchor.key), anchor)


def _verify_certified(data: bytes, endorsements: Endorsements, anchors: Sequence[Anchor], now: int) -> PlatformEvidence:
    quote = decode_quote(data, CertifiedQuote)
    key, anchor = certified_key(quote.key, endorsements, anchors, now)
    return _platform(verify_quote(quote, key), anchor)


def _platform(quote: VerifiedQuote, anchor: Anchor) -> PlatformEvidence:
    return PlatformEvidence(
        anchor=anchor,
        platform_instance=quote.key_digest,
        runtime=quote.runtime,
        report_data=quote.report_data,
        debug=False,  # a TPM has no such state
        details=quote.details,
    )


def _looks_like(data: bytes, kind: type[Quote] = Quote) -> bool:
    try:
        decode_quote(data, kind)
    except EvidenceError:
        return False
    return True


KIND = Kind(
    name="tpm",
    title="TPM 2.0",
    media_type=MEDIA_TYPE,
    classes=frozenset({"boot-attested"}),
    verify=_verify_pinned,
    looks_like=_looks_like,
    registers=REGISTERS,
    identifying=CODE_PCRS,
    pins=is_attestation_key,
)
CERTIFIED_KIND = Kind(
    name="tpm-certified",
    title="TPM 2.0 with a certified attestation key",
    media_type=CERTIFIED_MEDIA_TYPE,
    classes=frozenset({"boot-attested"}),
    verify=_verify_certified,
    looks_like=lambda data: _looks_like(data, CertifiedQuote),
    registers=REGISTERS,
    identifying=CODE_PCRS,
    pins=is_attestation_key,
    endorsement_types=TYPES,
)
