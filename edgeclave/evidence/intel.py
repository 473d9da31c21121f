"""What Intel SGX and TDX share: DCAP quotes (v3, v4, v5), Intel's collateral, and their verification by dcap-qvl.

dcap-qvl checks signatures, chains, revocation, QE identity and TCB levels against one root and one time. What it leaves
open is done here: the quote must be framed exactly (it accepts bytes behind a quote), and the root certificate inside
the quote must be the one it was verified with. It never verifies quotes of enclaves or domains in debug mode, nor of
domains that may be migrated, so no policy can accept them.

Format: Intel SGX ECDSA Quote Library Reference (v3), Intel TDX DCAP Quoting Library API (v4, v5), appendix A of both.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from edgeclave.errors import ConfigurationError, EvidenceError
from edgeclave.evidence.anchors import Anchor, Tcb, key_fingerprint
from edgeclave.evidence.endorsements import Endorsement, Endorsements, EndorsementType
from edgeclave.evidence.revocation import find_revocation
from edgeclave.evidence.x509_errors import UNREADABLE

ROOTS = {"intel-sgx-root": bytes.fromhex("a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e")}
"""SHA-256 of the SubjectPublicKeyInfo of Intel SGX Root CA, under which SGX and TDX platforms verify."""
SGX_TEE, TDX_TEE = 0x00, 0x81
MAX_QUOTE_BYTES = 32 << 10  # a quote with its certificate chain has 5 KiB
_HEADER = struct.Struct("<HHI")  # version, attestation key type, TEE type
_HEADER_BYTES = 48
_QE_VENDOR, _INTEL_QE = slice(12, 28), bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_BODY_BYTES = {SGX_TEE: 384, TDX_TEE: 584}  # v3 and v4; v5 says its own
_MAX_BODY_BYTES = 1024
_SIGNATURE_AND_KEY = 128
_QE_REPORT_AND_SIGNATURE = 384 + 64
_PCK_CHAIN, _QE_REPORT_DATA = 5, 6  # types of certification data
_PEM_END = b"-----END CERTIFICATE-----"
# What dcap-qvl says, to a code of ours; the first that fits. Everything else is a signature or chain that fails.
_REASONS = (
    ("debug", "debug-platform", "use a production platform"),
    ("migration is enabled", "migratable-platform", "launch the domain without the attribute MIGRATABLE"),
    ("revoked", "platform-revoked", "the vendor withdrew it; do not use it"),
    ("issue date is in the future", "endorsement-not-yet-valid", "check the clock"),
    ("expired", "endorsement-expired", "import current collateral, or verify at the time the evidence was received"),
    ("tcb level", "tcb-unknown", "the platform is below every level that Intel lists; update it"),
    ("decode quote", "malformed-quote", "do not use it"),
)


@dataclass(frozen=True)
class Collateral:
    """Intel collateral, parsed once: what dcap-qvl takes, the root of its chains, its TCB evaluation data number."""

    endorsement: Endorsement
    parsed: Any
    root: bytes
    fingerprint: bytes
    evaluation: int


@dataclass(frozen=True)
class Chain:
    """The certificates of a quote (DER, the platform's first), and what tells which collateral is about it."""

    certificates: tuple[bytes, ...]
    fmspc: str
    ca: str
    cpu_svn: str
    pce_svn: int


@dataclass(frozen=True)
class Verified:
    """A quote that dcap-qvl verified: the signed report inside it, what Intel says of the platform, the anchor."""

    anchor: Anchor
    report: bytes
    tcb: Tcb
    platform_instance: bytes
    details: dict[str, str | int]


def verify(quote: bytes, tee: int, endorsements: Endorsements, anchors: Sequence[Anchor], now: int) -> Verified:
    """Verifies a quote of one TEE type at `now` (s since 1970).

    Raises:
        EvidenceError: `malformed-quote`, `no-endorsement`, `endorsement-expired`, `endorsement-not-yet-valid`,
            `untrusted-anchor`, `bad-quote-signature`, `platform-revoked`, `tcb-unknown`, `debug-platform`,
            `migratable-platform`.
        ConfigurationError: `missing-extra`.
    """
    chain = _chain(_pck_chain(quote, tee))
    collateral = _collateral(endorsements.find(COLLATERAL, subject_of(tee, chain.fmspc, chain.ca), now).value)
    anchor = next((each for each in anchors if each.fingerprint == collateral.fingerprint), None)
    if anchor is None:
        raise EvidenceError(
            "untrusted-anchor",
            "the collateral for this quote ends in a root that the policy does not name",
            where=f"root {collateral.fingerprint.hex()}",
            advice="import collateral of the vendor; a root of stand-in hardware must be named by `test_root`",
        )
    if chain.certificates[-1] != collateral.root:
        raise _refused("bad-quote-signature", "the quote's chain ends in another root certificate")
    try:
        verified = _library().verify_with_root_ca(quote, collateral.parsed, collateral.root, now)
    except ValueError as error:
        raise _revocation(chain, collateral) or _reason(str(error)) from error
    details = {
        "quote_version": quote[0],
        "ppid": verified.ppid.hex(),
        "fmspc": chain.fmspc,
        "pck_cpu_svn": chain.cpu_svn,
        "pck_pce_svn": chain.pce_svn,
        "tcb_evaluation_data_number": collateral.evaluation,
        "collateral_sha256": collateral.endorsement.digest.hex(),
    }
    tcb = Tcb(verified.status, tuple(verified.advisory_ids))
    return Verified(anchor, _body(quote), tcb, verified.ppid, details)


def platform_of(quote: bytes, tee: int) -> tuple[str, str]:
    """FMSPC and CA of the platform a quote says it is from, unverified: which collateral to ask for.

    Raises:
        EvidenceError: `malformed-quote`.
    """
    chain = _chain(_pck_chain(quote, tee))
    return chain.fmspc, chain.ca


def looks_like(quote: bytes, tee: int) -> bool:
    """Whether the header is that of a DCAP quote by Intel's quoting enclave of this TEE type."""
    if len(quote) < _HEADER_BYTES or quote[_QE_VENDOR] != _INTEL_QE:
        return False
    version, _, tee_type = _HEADER.unpack_from(quote)
    return version in (3, 4, 5) and tee_type == tee and not (version == 3 and tee != SGX_TEE)


def quote_size(quote: bytes) -> int:
    """Bytes of the quote by its own lengths; 0 where they cannot be read."""
    try:
        offset = _signature_offset(quote)
        size: int = struct.unpack_from("<I", quote, offset)[0]
    except (struct.error, KeyError):
        return 0
    return offset + 4 + size


def subject_of(tee: int, fmspc: str, ca: str) -> str:
    """What collateral is about: TEE, FMSPC and the CA of the PCK certificate."""
    return f"{'tdx' if tee == TDX_TEE else 'sgx'}-{fmspc.lower()}-{ca.lower()}"


def malformed(what: str) -> EvidenceError:
    return EvidenceError("malformed-quote", f"not one DCAP quote: {what}", advice="do not use it")


def _signature_offset(quote: bytes) -> int:
    version, _, tee = _HEADER.unpack_from(quote)
    if version != 5:
        return _HEADER_BYTES + _BODY_BYTES[tee]
    size: int = struct.unpack_from("<HI", quote, _HEADER_BYTES)[1]
    return _HEADER_BYTES + 6 + min(size, _MAX_BODY_BYTES)


def _body(quote: bytes) -> bytes:
    return quote[_HEADER_BYTES + (6 if quote[0] == 5 else 0) : _signature_offset(quote)]


def _pck_chain(quote: bytes, tee: int) -> bytes:
    """The certificates (PEM) of a quote that is framed exactly: every length leads to the next field or the end."""
    if len(quote) > MAX_QUOTE_BYTES or not looks_like(quote, tee):
        raise malformed("wrong header or size")
    if quote_size(quote) != len(quote):
        raise malformed(f"{len(quote)} bytes, but its lengths say {quote_size(quote)}")
    position = _signature_offset(quote) + 4 + _SIGNATURE_AND_KEY
    try:
        if _HEADER.unpack_from(quote)[0] > 3:
            kind, size = struct.unpack_from("<HI", quote, position)
            position += 6
            if kind != _QE_REPORT_DATA or position + size != len(quote):
                raise malformed("certification data of another length")
        position += _QE_REPORT_AND_SIGNATURE
        position += 2 + struct.unpack_from("<H", quote, position)[0]
        kind, size = struct.unpack_from("<HI", quote, position)
    except struct.error as error:
        raise malformed("it ends early") from error
    if kind != _PCK_CHAIN or position + 6 + size != len(quote):
        raise malformed("no PCK certificate chain of the length it says")
    return quote[position + 6 :]


@lru_cache(maxsize=256)  # the same in every quote of a platform
def _chain(pem: bytes) -> Chain:
    certificates = _certificates(pem)
    try:
        pck = _library().parse_pck_extension_from_pem(pem)
        ca = _ca(x509.load_der_x509_certificate(certificates[0]).issuer)
    except (*UNREADABLE, StopIteration, IndexError) as error:
        raise malformed("its first certificate is no PCK certificate") from error
    return Chain(tuple(certificates), pck.fmspc.hex(), ca, pck.cpu_svn.hex(), pck.pce_svn)


def _ca(name: x509.Name) -> str:
    """Raises StopIteration, IndexError where it is no CA of PCK certificates."""
    common = str(name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value).lower()
    return next(ca for ca in ("processor", "platform") if f"pck {ca} ca" in common)


def _certificates(pem: bytes) -> list[bytes]:
    try:
        found = [x509.load_pem_x509_certificate(part + _PEM_END) for part in pem.split(_PEM_END)[:-1]]
        if not found:
            raise ValueError("no certificate")
        return [certificate.public_bytes(Encoding.DER) for certificate in found]
    except UNREADABLE as error:
        raise malformed(f"its certificate chain cannot be read: {error}") from error


def read_collateral(data: bytes) -> tuple[Endorsement, ...]:
    """The collateral that a JSON file in the form of dcap-qvl holds; () if it is none."""
    if data.lstrip()[:1] != b"{" or b"tcb_info" not in data:
        return ()
    try:
        values = json.loads(data)
        tcb, qe = json.loads(values["tcb_info"]), json.loads(values["qe_identity"])
        lists = [x509.load_der_x509_crl(from_hex(values[name])) for name in ("root_ca_crl", "pck_crl")]
        ca = _ca(lists[1].issuer)
        starts = [_time(each["issueDate"]) for each in (tcb, qe)]
        ends = [_time(each["nextUpdate"]) for each in (tcb, qe)]
        starts += [int(each.last_update_utc.timestamp()) for each in lists]
        # dcap-qvl takes nextUpdate of a list as the first second at which it is too old.
        ends += [int(each.next_update_utc.timestamp()) - 1 for each in lists if each.next_update_utc]
        subject = subject_of({"SGX": SGX_TEE, "TDX": TDX_TEE}[tcb["id"]], bytes.fromhex(tcb["fmspc"]).hex(), ca)
    except (*UNREADABLE, KeyError, IndexError, AttributeError, StopIteration, RecursionError):
        return ()
    return (Endorsement(COLLATERAL.name, subject, data, max(starts), min(ends)),)


def from_hex(text: str) -> bytes:
    """Raises ValueError, also for the white space that `bytes.fromhex` passes over: dcap-qvl takes none."""
    if not text.isalnum():
        raise ValueError("not hex")
    return bytes.fromhex(text)


COLLATERAL = EndorsementType("intel-collateral", "Intel collateral", read_collateral)


@lru_cache(maxsize=64)
def _collateral(data: bytes) -> Collateral:
    (endorsement,) = read_collateral(data)
    try:
        parsed = _library().QuoteCollateralV3.from_json(data.decode())
        root = _certificates(parsed.pck_crl_issuer_chain.encode())[-1]
        key = x509.load_der_x509_certificate(root).public_key()
        evaluation = int(json.loads(parsed.tcb_info).get("tcbEvaluationDataNumber", 0))
    except (*UNREADABLE, AttributeError, RecursionError, OverflowError) as error:
        raise _bad_collateral(f"it cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _bad_collateral("its root is no EC key")
    return Collateral(endorsement, parsed, root, key_fingerprint(key), evaluation)


def _library() -> Any:
    try:
        import dcap_qvl  # type: ignore[import-untyped]  # only a verifier of Intel evidence needs it, and no image on the device has it
    except ImportError as error:
        raise ConfigurationError(
            "missing-extra",
            "Intel SGX and TDX evidence needs dcap-qvl, which is not installed",
            advice="install `edgeclave[verifier]`",
        ) from error
    return dcap_qvl


def _revocation(chain: Chain, collateral: Collateral) -> EvidenceError | None:
    """For the reason only: dcap-qvl decides, and says no more than that the chain fails."""
    lists = (collateral.parsed.pck_crl, "the platform's PCK certificate"), (collateral.parsed.root_ca_crl, "its CA")
    for der, (revoked, who) in zip(chain.certificates, lists, strict=False):
        found = find_revocation(x509.load_der_x509_crl(revoked), x509.load_der_x509_certificate(der), who)
        if found is not None:
            return found
    return None


def _reason(text: str) -> EvidenceError:
    summary = text.splitlines()[0].removeprefix("Verification failed: ")
    for said, code, advice in _REASONS:
        if said in text.lower():
            return EvidenceError(code, f"dcap-qvl: {summary}", advice=advice)
    return _refused("bad-quote-signature", f"dcap-qvl: {summary}")


def _bad_collateral(what: str) -> EvidenceError:
    return EvidenceError("malformed-evidence", f"not collateral of Intel: {what}", advice="import it again")


def _refused(code: str, what: str) -> EvidenceError:
    return EvidenceError(code, what, advice="do not use it; it was altered, or is not of this platform")


def _time(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())
