"""Verifying SEV-SNP evidence of a stand-in, with its endorsements and claims, against its signature checks alone."""

from __future__ import annotations

import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from bench.row import Row, side_by_side
from edgeclave import cose
from edgeclave.evidence.eat import EAT, report_data
from edgeclave.evidence.verifier import Verifier
from tests.fixtures.amd_benches import SevSnpBench
from tests.fixtures.amd_hardware import PSS, AmdHardware
from tests.fixtures.evidence_bench import NONCE, NOW, Instance

ROUNDS, CALLS = 80, 10


def rows() -> list[Row]:
    hardware = AmdHardware()
    bench = SevSnpBench(hardware)
    instance = Instance(bench)
    eat = instance.eat()
    report = bench.quote(report_data(eat))
    evidence = instance.evidence(eat=eat, quote=report, carried=True)
    verifier = Verifier(bench.policy())
    bare = _Bare(hardware, report, eat, instance.signing_key.public_key())

    def verify() -> bool:
        return verifier.verify(evidence, nonce=NONCE, now=NOW).test

    assert verify()
    ours, reference = side_by_side(verify, bare.verify, rounds=ROUNDS, calls=CALLS, clock=time.process_time)
    against = "its signature checks: three RSA-PSS 4096, ECDSA P-384 and P-256"
    return [Row("verify SEV-SNP evidence", against, "µs", ours, reference, 2)]


class _Bare:
    """The signatures of ARK, ASK, VCEK, report and EAT, with everything parsed beforehand."""

    def __init__(
        self, hardware: AmdHardware, report: bytes, eat: bytes, instance_key: ec.EllipticCurvePublicKey
    ) -> None:
        chain = (hardware.root, hardware.signing_certificate, hardware.certificate)
        loaded = [x509.load_der_x509_certificate(der) for der in chain]
        keys = (hardware.root_key, hardware.root_key, hardware.signing_key)
        self._certificates = [
            (key.public_key(), certificate.signature, certificate.tbs_certificate_bytes)
            for key, certificate in zip(keys, loaded, strict=True)
        ]
        r, s = (int.from_bytes(report[at : at + 72], "little") for at in (0x2A0, 0x2A0 + 72))
        self._report = hardware.key.public_key(), encode_dss_signature(r, s), report[:0x2A0]

        parsed = cose.parse(eat)
        self._eat_signed = cose.dcbor(["Signature1", parsed.protected_bytes, EAT.context.encode(), parsed.payload])
        self._eat_signature = encode_dss_signature(
            *(int.from_bytes(parsed.signature[at : at + 32], "big") for at in (0, 32))
        )
        self._instance_key = instance_key

    def verify(self) -> None:
        for key, signature, signed in self._certificates:
            key.verify(signature, signed, PSS, hashes.SHA384())
        report_key, signature, signed = self._report
        report_key.verify(signature, signed, ec.ECDSA(hashes.SHA384()))
        self._instance_key.verify(self._eat_signature, self._eat_signed, ec.ECDSA(hashes.SHA256()))
