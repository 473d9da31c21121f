"""A second implementation of the formats in docs/formats.md, written from that page with cbor2 and cryptography only.

It imports nothing of edgeclave. Everything that is random in practice is fixed here, and ECDSA is deterministic
(RFC 6979), so that `python tests/vectors/reference.py` writes the same docs/vectors/*.json on every machine.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap

FOLDER = Path(__file__).parents[2] / "docs" / "vectors"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SIGN1, ENCRYPT = 18, 96
KINDS = {
    "eat": ("application/eat+cwt", b"edgeclave/evidence/1"),
    "quote": ("application/edgeclave-emulator-quote+cose", b"edgeclave/emulator-quote/1"),
    "result": ("application/edgeclave-result+cose", b"edgeclave/result/1"),
    "open": ("application/edgeclave-open+cose", b"edgeclave/open/1"),
    "close": ("application/edgeclave-close+cose", b"edgeclave/close/1"),
    "recipients": ("application/edgeclave-recipients+cose", b"edgeclave/recipients/1"),
    "beacon": ("application/edgeclave-beacon+cose", b"edgeclave/beacon/1"),
}


def fixed(name: str, size: int = 32) -> bytes:
    """Bytes that look random and are the same everywhere."""
    return hashlib.sha256(f"edgeclave vectors/1|{name}".encode()).digest()[:size]


def private_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(fixed(f"key {name}"), "big") % ORDER, ec.SECP256R1())


def dcbor(value: object) -> bytes:
    return cbor2.dumps(value, canonical=True)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def cose_key(key: ec.EllipticCurvePublicKey) -> dict[int, Any]:
    numbers = key.public_numbers()
    return {1: 2, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}


def thumbprint(key: ec.EllipticCurvePublicKey) -> bytes:
    return sha256(dcbor(cose_key(key)))


def to_be_signed(kind: str, protected: bytes, payload: bytes) -> bytes:
    return dcbor(["Signature1", protected, KINDS[kind][1], payload])


def sign(kind: str, payload: bytes, key: ec.EllipticCurvePrivateKey, header: dict[int, Any] | None = None) -> bytes:
    protected = dcbor({1: -7, 16: KINDS[kind][0], **(header or {})})
    algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    r, s = decode_dss_signature(key.sign(to_be_signed(kind, protected, payload), algorithm))
    signature = r.to_bytes(32, "big") + min(s, ORDER - s).to_bytes(32, "big")
    return dcbor(cbor2.CBORTag(SIGN1, [protected, {}, payload, signature]))


def verify(kind: str, message: bytes, key: ec.EllipticCurvePublicKey) -> tuple[dict[int, Any], bytes]:
    """Header and payload; raises when anything is not as it must be."""
    tag = cbor2.loads(message)
    protected, unprotected, payload, signature = tag.value
    header = cbor2.loads(protected)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    assert dcbor(tag) == message
    assert dcbor(header) == protected
    assert (tag.tag, unprotected, len(signature)) == (SIGN1, {}, 64)
    assert (header[1], header[16]) == (-7, KINDS[kind][0])
    assert s <= ORDER // 2
    key.verify(encode_dss_signature(r, s), to_be_signed(kind, protected, payload), ec.ECDSA(hashes.SHA256()))
    return header, payload


def report_data(eat: bytes) -> bytes:
    protected, _, payload, _ = cbor2.loads(eat).value
    return sha256(dcbor(["edgeclave/report-data/1", protected, payload])) + bytes(32)


def binding(instance_id: bytes, result_header: dict[str, Any]) -> bytes:
    return dcbor(["edgeclave/result/1", instance_id, result_header])


def kdf_context(x: bytes, recipient: bytes) -> bytes:
    other = b"edgeclave/result/1|" + base64.urlsafe_b64encode(sha256(x + recipient)).rstrip(b"=")
    nobody = [None, None, None]
    return dcbor([-5, nobody, nobody, [256, dcbor({1: -31}), other]])


def wrapping_key(shared: bytes, context: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, None, context).derive(shared)


def encrypt(plaintext: bytes, x: bytes, readers: list[ec.EllipticCurvePublicKey]) -> bytes:
    content_key, iv = fixed("content key"), fixed("iv", 12)
    protected = dcbor({1: 3})
    ciphertext = AESGCM(content_key).encrypt(iv, plaintext, dcbor(["Encrypt", protected, x]))
    recipients = []
    for number, reader in enumerate(sorted(readers, key=thumbprint)):
        ephemeral = private_key(f"ephemeral {number}")
        kek = wrapping_key(ephemeral.exchange(ec.ECDH(), reader), kdf_context(x, thumbprint(reader)))
        header = {4: thumbprint(reader), -1: cose_key(ephemeral.public_key())}
        recipients.append([dcbor({1: -31}), header, aes_key_wrap(kek, content_key)])
    return dcbor(cbor2.CBORTag(ENCRYPT, [protected, {5: iv}, ciphertext, recipients]))


def decrypt(encrypted: bytes, x: bytes, reader: ec.EllipticCurvePrivateKey) -> bytes:
    protected, unprotected, ciphertext, recipients = cbor2.loads(encrypted).value
    mine = thumbprint(reader.public_key())
    _, header, wrapped = next(entry for entry in recipients if entry[1][4] == mine)
    point = header[-1]
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(point[-2], "big"), int.from_bytes(point[-3], "big"), ec.SECP256R1()
    )
    kek = wrapping_key(reader.exchange(ec.ECDH(), numbers.public_key()), kdf_context(x, mine))
    content_key = aes_key_unwrap(kek, wrapped)
    return AESGCM(content_key).decrypt(unprotected[5], ciphertext, dcbor(["Encrypt", protected, x]))


def open_result(message: bytes, instance: ec.EllipticCurvePublicKey, reader: ec.EllipticCurvePrivateKey) -> bytes:
    header, encrypted = verify("result", message, instance)
    assert header[4] == thumbprint(instance)
    plaintext = decrypt(encrypted, binding(header[4], header[-65537]), reader)
    assert sha256(plaintext) == header[-65537]["content"]
    return plaintext[32:]


def vectors() -> dict[str, Any]:
    """File name -> content, everything in hex."""
    attestation, instance, channel, reader, second = (
        private_key(name) for name in ("attestation", "instance", "channel", "reader", "second reader")
    )
    authority, beacon_authority = private_key("recipient authority"), private_key("beacon authority")
    instance_id = thumbprint(instance.public_key())
    identity = {
        "unique_id": fixed("unique_id"),
        "signer_id": fixed("signer_id"),
        "product_id": 7,
        "security_version": 3,
        "debug": False,
    }

    beacon_payload = dcbor({"number": 4, "value": fixed("beacon", 16)})
    beacon = sign("beacon", beacon_payload, beacon_authority)

    readers = sorted([reader.public_key(), second.public_key()], key=thumbprint)
    set_payload = dcbor({"output": "anomalies", "version": 2, "keys": [cose_key(key) for key in readers]})
    recipient_set = sign("recipients", set_payload, authority)

    claims = {
        8: {1: cose_key(instance.public_key())},
        10: fixed("nonce", 16),
        263: 1,
        265: "tag:edgeclave.example,2026:evidence/1",
        -65537: cose_key(channel.public_key()),
        -65538: identity,
        -65539: {"number": 2, "source": "none", "predecessor": fixed("predecessor")},
        -65540: "consistent",
        -65541: {"anomalies": [2, sha256(recipient_set)]},
        -65542: 1_700_000_000_123,
    }
    eat = sign("eat", dcbor(claims), instance)
    quote_payload = dcbor({"report_data": report_data(eat), "runtime_digest": fixed("runtime"), "debug": False})
    quote = sign("quote", quote_payload, attestation, {4: thumbprint(attestation.public_key())})
    evidence = dcbor({"ta": [KINDS["eat"][0], eat], "platform": [KINDS["quote"][0], quote]})

    open_payload = dcbor(
        {
            "epoch": 2,
            "slot": "anomaly",
            "evidence": sha256(evidence),
            "identity": identity,
            "predecessor": fixed("predecessor"),
            "heads": {"anomalies": [9, fixed("last result")]},
        }
    )
    opened = sign("open", open_payload, instance, {4: instance_id})

    salt, payload = fixed("salt"), b'{"start":1,"end":2,"peak":99.5,"score":7.25}'
    inputs = sha256(
        dcbor(["edgeclave/inputs/1", bytes(32), "observe", sha256(b'{"readings":[1,2,3]}'), "none"]),
    )
    result_header = {
        "unique_id": identity["unique_id"],
        "signer_id": identity["signer_id"],
        "product_id": 7,
        "security_version": 3,
        "output": "anomalies",
        "epoch": 2,
        "seq": 1,
        "prev": sha256(opened),
        "evidence": sha256(evidence),
        "recipients": [2, sha256(recipient_set)],
        "beacon": [4, fixed("beacon", 16)],
        "calls": 1,
        "inputs": inputs,
        "assurance": "none",
        "host_time": 1_700_000_000_456,
        "content": sha256(salt + payload),
    }
    x = binding(instance_id, result_header)
    encrypted = encrypt(salt + payload, x, readers)
    result = sign("result", encrypted, instance, {4: instance_id, -65537: result_header})

    close_payload = dcbor({"epoch": 2, "slot": "anomaly", "heads": {"anomalies": [1, sha256(result)]}})
    closed = sign("close", close_payload, instance, {4: instance_id})

    keys = {
        name: {
            "d": key.private_numbers().private_value.to_bytes(32, "big"),
            "x": cose_key(key.public_key())[-2],
            "y": cose_key(key.public_key())[-3],
            "thumbprint": thumbprint(key.public_key()),
        }
        for name, key in {
            "attestation": attestation,
            "instance": instance,
            "channel": channel,
            "reader": reader,
            "second reader": second,
            "recipient authority": authority,
            "beacon authority": beacon_authority,
        }.items()
    }
    files = {
        "keys": keys,
        "beacon": {"signer": "beacon authority", "payload": beacon_payload, "message": beacon},
        "recipients": {
            "signer": "recipient authority",
            "payload": set_payload,
            "message": recipient_set,
            "digest": sha256(recipient_set),
        },
        "evidence": {
            "eat": {"signer": "instance", "claims": dcbor(claims), "message": eat, "report_data": report_data(eat)},
            "quote": {"signer": "attestation", "payload": quote_payload, "message": quote},
            "runtime_digest": fixed("runtime"),
            "collection": evidence,
            "digest": sha256(evidence),
        },
        "records": {
            "open": {"signer": "instance", "payload": open_payload, "message": opened, "digest": sha256(opened)},
            "close": {"signer": "instance", "payload": close_payload, "message": closed, "digest": sha256(closed)},
        },
        "result": {
            "signer": "instance",
            "recipients": ["reader", "second reader"],
            "inputs": {"method": "observe", "payload": b'{"readings":[1,2,3]}', "assurance": "none", "chain": inputs},
            "result_header": dcbor(result_header),
            "salt": salt,
            "payload": payload,
            "content": result_header["content"],
            "x": x,
            "content_key": fixed("content key"),
            "iv": fixed("iv", 12),
            "ephemeral_keys": [
                private_key(f"ephemeral {number}").private_numbers().private_value.to_bytes(32, "big")
                for number in range(2)
            ],
            "kdf_contexts": [kdf_context(x, thumbprint(key)) for key in readers],
            "encrypted": encrypted,
            "protected": cbor2.loads(result).value[0],
            "to_be_signed": to_be_signed("result", cbor2.loads(result).value[0], encrypted),
            "message": result,
            "digest": sha256(result),
        },
    }
    shown: dict[str, Any] = _in_hex(files)
    return shown


def _in_hex(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _in_hex(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_in_hex(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def text(content: object) -> str:
    return json.dumps(content, indent=2) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in vectors().items():
        (FOLDER / f"{name}.json").write_text(text(content))
    sys.stdout.write(f"{FOLDER}\n")
