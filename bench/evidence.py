"""Verifying evidence: SGX against bare dcap-qvl, the emulator against its two signature checks alone."""

from __future__ import annotations

import time
from typing import Any

import dcap_qvl  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from bench.row import Row, side_by_side
from edgeclave import cose
from edgeclave.evidence.eat import EAT
from edgeclave.evidence.emulator import QUOTE
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.verifier import Verifier
from tests.fixtures.benches import EmulatorBench, IntelBench
from tests.fixtures.evidence_bench import NONCE, NOW, Instance

ROUNDS, CALLS = 200, 10
_ECDSA = ec.ECDSA(hashes.SHA256())


def rows() -> list[Row]:
    return [_sgx(), _emulator()]


def _sgx() -> Row:
    bench = IntelBench("sgx", 3)
    instance = Instance(bench)
    evidence = instance.evidence()
    verifier = Verifier(bench.policy(), endorsements=Endorsements(bench.endorsements()))
    quote = bench.quote(bytes(64))
    collateral = dcap_qvl.QuoteCollateralV3.from_json(bench.hardware.collateral("sgx").decode())
    root = bench.hardware.root.public_bytes(Encoding.DER)

    def bare() -> Any:
        return dcap_qvl.verify_with_root_ca(quote, collateral, root, NOW)

    assert bare().status == "UpToDate"
    ours, reference = side_by_side(
        lambda: verifier.verify(evidence, nonce=NONCE, now=NOW),
        bare,
        rounds=ROUNDS,
        calls=CALLS,
        clock=time.process_time,
    )
    return Row("verify SGX evidence", "its quote alone, by bare dcap-qvl", "µs", ours, reference, 1.5)


def _emulator() -> Row:
    bench = EmulatorBench()
    instance = Instance(bench)
    eat = instance.eat()
    evidence = instance.evidence(eat=eat)
    verifier = Verifier(bench.policy())
    quote = instance.bench.quote(bytes(64))
    checks = []
    for message, kind, key in ((quote, QUOTE, bench.key), (eat, EAT, instance.signing_key)):
        signed = cose.parse(message)
        halves = (int.from_bytes(half, "big") for half in (signed.signature[:32], signed.signature[32:]))
        to_be_signed = cose.dcbor(["Signature1", signed.protected_bytes, kind.context.encode(), signed.payload])
        checks.append((key.public_key(), encode_dss_signature(*halves), to_be_signed))

    def bare() -> None:
        for key, signature, message in checks:
            key.verify(signature, message, _ECDSA)

    bare()
    now = int(time.time())
    ours, reference = side_by_side(
        lambda: verifier.verify(evidence, nonce=NONCE, now=now),
        bare,
        rounds=ROUNDS,
        calls=CALLS,
        clock=time.process_time,
    )
    return Row("verify emulator evidence", "its two signatures alone", "µs", ours, reference, 2.0)
