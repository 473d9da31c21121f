"""Intel's Provisioning Certification Service (PCS) v4, and caches of it (PCCS): collateral of SGX and TDX platforms.

What one platform needs are five documents, four of them with the chain of their signer in a header, URL-encoded:

    /sgx/certification/v4/tcb?fmspc=FMSPC         TCB-Info-Issuer-Chain; for TDX below /tdx
    /sgx/certification/v4/qe/identity             SGX-Enclave-Identity-Issuer-Chain; for TDX below /tdx
    /sgx/certification/v4/pckcrl?ca=CA            SGX-PCK-CRL-Issuer-Chain
    /sgx/certification/v4/rootcacrl               of a PCCS; Intel publishes it at another address

Only the model of the platform (FMSPC) is told to the service, not which platform it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edgeclave.cloud.vendor_services.https import Answer, VendorService, unexpected_answer
from edgeclave.errors import ConfigurationError
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.endorsements import Endorsement
from edgeclave.evidence.intel import SGX_TEE, TDX_TEE, subject_of
from edgeclave.evidence.intel_collateral import verify_collateral
from edgeclave.evidence.x509_errors import UNREADABLE

SERVICE = "https://api.trustedservices.intel.com"
ROOT_LIST_SERVICE = "https://certificates.trustedservices.intel.com"
CAS = ("processor", "platform")
_PATH = "/{}/certification/v4"
_FMSPC = re.compile(r"[0-9A-Fa-f]{12}")
_HEX = re.compile(rb"\s*(?:[0-9A-Fa-f]{2})+\s*")

Tee = Literal["sgx", "tdx"]


@dataclass(frozen=True)
class Platform:
    """A model of platform (`fmspc`, 12 hex digits) whose PCK certificates are by `ca`: processor or platform."""

    tee: Tee
    fmspc: str
    ca: str

    def __post_init__(self) -> None:
        """Raises ConfigurationError `bad-fmspc`."""
        if not _FMSPC.fullmatch(self.fmspc):
            raise ConfigurationError(
                "bad-fmspc",
                f"not 12 hex digits: {self.fmspc[:80]!r}",
                where=f"--{self.tee}-fmspc",
                advice="see `fmspc` in what `edgeclave verify` says of a quote, or name the quote instead",
            )


def without_path(url: str) -> str:
    """A cache is often named with the path below which it answers: `https://HOST:8081/sgx/certification/v4/`."""
    return url.rstrip("/").removesuffix(_PATH.format("sgx"))


class _TcbInfo(msgspec.Struct):
    document: msgspec.Raw = msgspec.field(name="tcbInfo")
    signature: str


class _Identity(msgspec.Struct):
    document: msgspec.Raw = msgspec.field(name="enclaveIdentity")
    signature: str


async def fetch_collateral(
    service: VendorService, root_lists: VendorService | None, platform: Platform, anchors: Sequence[Anchor], now: int
) -> Endorsement:
    """Args:
        service: PCS or PCCS.
        root_lists: where Intel itself publishes the root's revocation list; None if `service` has it.
        platform: what it is for.
        anchors: roots of which one must be the root of all of it.
        now: s since 1970, when all of it must be valid.

    Raises:
        EdgeclaveError: as `VendorService.get`.
        EvidenceError: as `verify_collateral`; `endorsement-mismatch`.
    """
    base = _PATH.format(platform.tee)
    lists = _PATH.format("sgx")  # TDX platforms have the same PCK certificates
    tcb = await service.get(f"{base}/tcb?fmspc={platform.fmspc.upper()}", f"TCB information of {platform.fmspc}")
    identity = await service.get(f"{base}/qe/identity", "identity of the quoting enclave")
    pck = await service.get(f"{lists}/pckcrl?ca={platform.ca}&encoding=der", "revocation list of PCK certificates")
    if root_lists is None:
        root = await service.get(f"{lists}/rootcacrl", "revocation list of the root")
    else:
        root = await root_lists.get("/IntelSGXRootCA.der", "revocation list of the root")
    where = service.url
    tcb_signed, identity_signed = _signed(where, tcb, _TcbInfo), _signed(where, identity, _Identity)
    collateral = json.dumps(
        {
            "pck_crl_issuer_chain": _chain(where, pck, "sgx-pck-crl-issuer-chain"),
            "root_ca_crl": _list(where, root.body).hex(),
            "pck_crl": _list(where, pck.body).hex(),
            "tcb_info_issuer_chain": _chain(where, tcb, "tcb-info-issuer-chain"),
            "tcb_info": tcb_signed[0],
            "tcb_info_signature": tcb_signed[1],
            "qe_identity_issuer_chain": _chain(where, identity, "sgx-enclave-identity-issuer-chain"),
            "qe_identity": identity_signed[0],
            "qe_identity_signature": identity_signed[1],
        }
    )
    endorsement = verify_collateral(collateral.encode(), anchors, now)
    tee = TDX_TEE if platform.tee == "tdx" else SGX_TEE
    if endorsement.subject != (wanted := subject_of(tee, platform.fmspc, platform.ca)):
        raise unexpected_answer(where, f"it sent collateral for {endorsement.subject}, not {wanted}")
    return endorsement


def _signed(where: str, answer: Answer, kind: type[_TcbInfo | _Identity]) -> tuple[str, str]:
    """The bytes of a document exactly as they were signed, and the signature in hex."""
    try:
        read = msgspec.json.decode(answer.body, type=kind)
        return bytes(read.document).decode(), read.signature
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise unexpected_answer(where, f"not a signed document of Intel's service: {error}") from error


def _chain(where: str, answer: Answer, header: str) -> str:
    value = answer.headers.get(header)
    if value is None:
        raise unexpected_answer(where, f"the header {header} is missing")
    return unquote(value)


def _list(where: str, body: bytes) -> bytes:
    """DER; some caches send it as hex or PEM, whatever they are asked for."""
    try:
        if _HEX.fullmatch(body):
            body = bytes.fromhex(body.decode())
        pem = body.startswith(b"-----BEGIN")
        read = x509.load_pem_x509_crl(body) if pem else x509.load_der_x509_crl(body)
        return read.public_bytes(Encoding.DER)
    except UNREADABLE as error:
        raise unexpected_answer(where, f"not a revocation list: {error}") from error
