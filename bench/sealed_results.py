"""Sealing and opening a 1 KiB result, against the same COSE structures made and read by bare cwt."""

from __future__ import annotations

import os
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cwt import COSE, COSEKey, Recipient

from bench.row import Row, side_by_side
from edgeclave import cose
from edgeclave.results.recipients import sign_recipient_set, verify_recipient_set
from edgeclave.results.sealed import NO_INPUTS, RESULT, RESULT_HEADER, ResultHeader, open_result, seal, verify_result
from edgeclave.wire import to_map

PAYLOAD = os.urandom(1024)
ROUNDS, CALLS = 30, 40


def rows() -> list[Row]:
    signing, reader, authority = (cose.generate_key() for _ in range(3))
    message = sign_recipient_set("out", 1, [reader.public_key()], authority)
    recipients = verify_recipient_set(message, authority.public_key())
    digest = os.urandom(32)
    header = ResultHeader(
        unique_id=digest,
        signer_id=digest,
        product_id=1,
        security_version=1,
        output="out",
        epoch=1,
        sequence=1,
        previous=digest,
        evidence_digest=digest,
        recipients=(recipients.version, recipients.digest),
        beacon=None,
        calls=1,
        inputs=NO_INPUTS,
        assurance="none",
        host_time=1_700_000_000_000,
    )
    bare = _Bare(signing, reader, cbor2.loads(cose.dcbor({**to_map(header), "content": digest})))

    sealed = seal(header, PAYLOAD, signing, recipients)
    bare_sealed = bare.seal()

    def open_ours() -> bytes:
        return open_result(verify_result(sealed, signing.public_key()), reader)

    assert open_ours() == PAYLOAD == bare.open(bare_sealed)[32:]
    ours, reference = side_by_side(
        lambda: seal(header, PAYLOAD, signing, recipients), bare.seal, rounds=ROUNDS, calls=CALLS
    )
    sealing = Row("seal a 1 KiB result", "the same COSE structure by bare cwt", "µs", ours, reference, 1.3)
    ours, reference = side_by_side(open_ours, lambda: bare.open(bare_sealed), rounds=ROUNDS, calls=CALLS)
    opening = Row("verify and open it, evidence known", "the same two by bare cwt", "µs", ours, reference, 1.3)
    return [sealing, opening]


class _Bare:
    """COSE_Sign1 around COSE_Encrypt to one recipient, with keys converted beforehand and no checks of ours."""

    def __init__(self, signing: ec.EllipticCurvePrivateKey, reader: ec.EllipticCurvePrivateKey, header: object) -> None:
        def key(private: ec.EllipticCurvePrivateKey, algorithm: int) -> dict[int, Any]:
            public = private.public_key()
            return {**cose.cose_key(public), 2: cose.thumbprint(public), 3: algorithm}

        def secret(private: ec.EllipticCurvePrivateKey) -> bytes:
            return private.private_numbers().private_value.to_bytes(32, "big")

        self._cose = COSE.new(alg_auto_inclusion=False, kid_auto_inclusion=False)
        self._sign_key = COSEKey.new({**key(signing, -7), -4: secret(signing)})
        self._verify_key = COSEKey.new(key(signing, -7))
        self._recipient_key = COSEKey.new(key(reader, -31))
        self._open_key = COSEKey.new({**key(reader, -31), -4: secret(reader)})
        self._thumbprint = cose.thumbprint(reader.public_key())
        self._protected = {
            1: -7,
            4: cose.thumbprint(signing.public_key()),
            16: RESULT.media_type,
            RESULT_HEADER: header,
        }
        nobody = [None, None, None]
        self._context = [-5, nobody, nobody, [256, cbor2.dumps({1: -31}), b"x" * 62]]

    def seal(self) -> bytes:
        recipient = Recipient.new(
            protected={1: -31},
            unprotected={4: self._thumbprint},
            recipient_key=self._recipient_key,
            context=self._context,
        )
        inner = self._cose.encode_and_encrypt(
            os.urandom(32) + PAYLOAD,
            COSEKey.from_symmetric_key(os.urandom(32), alg="A256GCM"),
            protected={1: 3},
            unprotected={5: os.urandom(12)},
            recipients=[recipient],
            external_aad=b"x" * 300,
        )
        signed: bytes = self._cose.encode_and_sign(
            inner, self._sign_key, protected=self._protected, external_aad=RESULT.context.encode()
        )
        return signed

    def open(self, message: bytes) -> bytes:
        inner = self._cose.decode(message, self._verify_key, external_aad=RESULT.context.encode())
        plaintext: bytes = self._cose.decode(inner, self._open_key, context=self._context, external_aad=b"x" * 300)
        return plaintext
