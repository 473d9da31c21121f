"""PROTOCOL section 13: every message kind offered in place of every other, all by the same key, is refused."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave import cose
from edgeclave.errors import EdgeclaveError
from edgeclave.evidence.eat import Claims, Epoch, make_eat, read_eat
from edgeclave.evidence.emulator import make_quote, verify_quote
from edgeclave.results.beacon import Beacon, sign_beacon, verify_beacon
from edgeclave.results.recipients import sign_recipient_set, verify_recipient_set
from edgeclave.results.records import CloseRecord, OpenRecord, sign_close, sign_open, verify_close, verify_open
from edgeclave.results.sealed import NO_INPUTS, ResultHeader, seal, verify_result
from edgeclave.ta.identity import Identity
from edgeclave.ta.manifest import Manifest, Method
from edgeclave.ta.package import Package
from edgeclave.ta.signature import sign_package, verify_package
from edgeclave.ta.signing import self_signed

KEY = cose.generate_key()
PUBLIC = KEY.public_key()
IDENTITY = Identity(b"u" * 32, b"s" * 32, 7, 3, False)
MANIFEST = Manifest(
    name="anomaly",
    version="1",
    product_id=7,
    security_version=3,
    accept_state_from_svn=3,
    methods={"observe": Method()},
)
WASM = b"\0asm"


def certificate() -> x509.Certificate:
    return self_signed(KEY, "developer")


def result() -> bytes:
    recipients = verify_recipient_set(sign_recipient_set("anomalies", 1, [PUBLIC], KEY), PUBLIC)
    header = ResultHeader(
        unique_id=bytes(32),
        signer_id=bytes(32),
        product_id=7,
        security_version=3,
        output="anomalies",
        epoch=1,
        sequence=1,
        previous=bytes(32),
        evidence_digest=bytes(32),
        recipients=(1, recipients.digest),
        beacon=None,
        calls=1,
        inputs=NO_INPUTS,
        assurance="none",
        host_time=0,
    )
    return seal(header, b"", KEY, recipients)


def claims() -> Claims:
    return Claims(None, PUBLIC, PUBLIC, IDENTITY, Epoch(1, "none", None), "consistent", {}, None)


def verify_signature(message: bytes, _: ec.EllipticCurvePublicKey) -> object:
    return verify_package(Package("sha256:" + "0" * 64, WASM, cose.sha256(WASM), message, {}))


MESSAGES = {
    "package signature": sign_package(MANIFEST, WASM, KEY, [certificate()]),
    "EAT": make_eat(claims(), KEY),
    "emulator quote": make_quote(KEY, bytes(64), bytes(32), False),
    "result": result(),
    "open record": sign_open(OpenRecord(1, "anomaly", bytes(32), IDENTITY, None, {}), KEY),
    "close record": sign_close(CloseRecord(1, "anomaly", {}), KEY),
    "recipient set": sign_recipient_set("anomalies", 1, [PUBLIC], KEY),
    "beacon": sign_beacon(Beacon(1, bytes(16)), KEY),
}
VERIFIERS = {
    "package signature": verify_signature,
    "EAT": lambda message, _: read_eat(message),
    "emulator quote": verify_quote,
    "result": verify_result,
    "open record": verify_open,
    "close record": verify_close,
    "recipient set": verify_recipient_set,
    "beacon": verify_beacon,
}


@pytest.mark.parametrize("expected", VERIFIERS)
@pytest.mark.parametrize("offered", MESSAGES)
def test_each_is_accepted_only_as_itself(offered, expected):
    if offered == expected:
        VERIFIERS[expected](MESSAGES[offered], PUBLIC)
    else:
        with pytest.raises(EdgeclaveError):
            VERIFIERS[expected](MESSAGES[offered], PUBLIC)


@pytest.mark.parametrize("kind", MESSAGES)
def test_the_context_alone_separates_too(kind):
    """The same header and payload under another context string does not verify, so `typ` is not all there is."""
    signed = cose.parse(MESSAGES[kind])
    protected = {label: value for label, value in signed.protected.items() if label not in (cose.ALG, cose.TYP)}
    media_type = signed.protected[cose.TYP]
    message = cose.sign(cose.MessageKind(media_type, "edgeclave/else/1"), signed.payload, KEY, protected=protected)
    with pytest.raises(EdgeclaveError):
        VERIFIERS[kind](message, PUBLIC)


def test_no_two_kinds_share_a_media_type():
    assert len({cose.parse(message).protected[cose.TYP] for message in MESSAGES.values()}) == len(MESSAGES)
