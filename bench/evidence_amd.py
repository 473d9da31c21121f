"""Verifying SEV-SNP evidence of stand-in hardware, against its four signature checks alone."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from bench.row import Row, side_by_side
from edgeclave.evidence.sev_snp import KIND
from tests.fixtures.amd_hardware import NOW, PSS, AmdHardware

ROUNDS, CALLS = 30, 20


def rows() -> list[Row]:
    hardware = AmdHardware()
    report, endorsements, anchors = hardware.report(), hardware.endorsements(), [hardware.anchor()]
    assert KIND.verify(report, endorsements, anchors, NOW).anchor == anchors[0]
    bare = _Bare(hardware, report)
    ours, reference = side_by_side(
        lambda: KIND.verify(report, endorsements, anchors, NOW), bare.verify, rounds=ROUNDS, calls=CALLS
    )
    against = "its signature checks: ECDSA P-384, three times RSA-PSS 4096"
    return [Row("verify SEV-SNP evidence", against, "µs", ours, reference, 2)]


class _Bare:
    """The signatures of report, VCEK, ASK and ARK, with everything parsed beforehand."""

    def __init__(self, hardware: AmdHardware, report: bytes) -> None:
        chain = (hardware.root, hardware.signing_certificate, hardware.certificate)
        loaded = [x509.load_der_x509_certificate(der) for der in chain]
        keys = (hardware.root_key, hardware.root_key, hardware.signing_key)
        self._certificates = [
            (key.public_key(), certificate.signature, certificate.tbs_certificate_bytes)
            for key, certificate in zip(keys, loaded, strict=True)
        ]
        r, s = (int.from_bytes(report[at : at + 72], "little") for at in (0x2A0, 0x2A0 + 72))
        self._report = hardware.key.public_key(), encode_dss_signature(r, s), report[:0x2A0]

    def verify(self) -> None:
        for key, signature, signed in self._certificates:
            key.verify(signature, signed, PSS, hashes.SHA384())
        report_key, signature, signed = self._report
        report_key.verify(signature, signed, ec.ECDSA(hashes.SHA384()))
