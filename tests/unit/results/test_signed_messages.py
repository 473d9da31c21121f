"""COSE_Sign1 as `edgeclave.cose` makes and reads it: one encoding per message."""

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave import cose

KIND = cose.MessageKind("application/example+cose", "edgeclave/example/1")
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
KEY = cose.generate_key()
TYP = KIND.media_type


def framed(protected, *, unprotected=None, payload=b"payload", signature=None, tag=18):
    """A message with a signature that verifies over whatever stands in it."""
    header = protected if isinstance(protected, bytes) else cbor2.dumps(protected)
    if signature is None:
        signature = signed(header, payload)
    return cbor2.dumps(cbor2.CBORTag(tag, [header, unprotected or {}, payload, signature]))


def signed(header, payload):
    to_be_signed = cbor2.dumps(["Signature1", header, KIND.context.encode(), payload])
    raw = cose._cose_private_key(KEY).sign(to_be_signed)
    s = int.from_bytes(raw[32:], "big")
    return raw[:32] + min(s, ORDER - s).to_bytes(32, "big")


def refusal(message, key=KEY):
    with pytest.raises(cose.SignatureError) as refused:
        cose.verify(KIND, message, key.public_key())
    return refused.value.code


def test_the_frame_made_here_is_the_one_accepted():
    assert cose.verify(KIND, framed({1: -7, 16: TYP}), KEY.public_key()).signer == cose.thumbprint(KEY)


@pytest.mark.parametrize("size", [0, 1, 23, 24, 255, 256, 65535, 65536, 1 << 20])
def test_payloads_of_all_lengths(size):
    message = cose.sign(KIND, bytes(size), KEY, protected={cose.KID: b"any"})
    assert cose.verify(KIND, message, KEY.public_key()).payload == bytes(size)


def test_every_signature_has_the_lower_root():
    for _ in range(40):
        message = cose.sign(KIND, b"payload", KEY)
        assert int.from_bytes(message[-32:], "big") <= ORDER // 2
        cose.verify(KIND, message, KEY.public_key())


@pytest.mark.parametrize(
    ("message", "code"),
    [
        pytest.param(framed({16: TYP, 1: -7}), "malformed-message", id="header in another order"),
        pytest.param(
            framed(b"\xbf\x01\x26\x10\x78\x18" + TYP.encode() + b"\xff"), "malformed-message", id="indefinite"
        ),
        pytest.param(framed(b"\xa3\x01\x26\x01\x26\x10\x78\x18" + TYP.encode()), "malformed-message", id="label twice"),
        pytest.param(framed(b"\xa2\x18\x01\x26\x10\x78\x18" + TYP.encode()), "malformed-message", id="a long label"),
        pytest.param(framed({1.0: -7, 16: TYP}), "malformed-message", id="a float label"),
        pytest.param(framed({True: -7, 16: TYP}), "malformed-message", id="a bool label"),
        pytest.param(framed({"alg": -7, 16: TYP}), "malformed-message", id="a text label"),
        pytest.param(framed({1: -7.0, 16: TYP}), "malformed-message", id="a float algorithm"),
        pytest.param(framed({1: -35, 16: TYP}), "wrong-message-kind", id="another algorithm"),
        pytest.param(framed({16: TYP}), "wrong-message-kind", id="no algorithm"),
        pytest.param(framed({1: -7}), "wrong-message-kind", id="no media type"),
        pytest.param(framed({1: -7, 16: 60}), "wrong-message-kind", id="a content format number"),
        pytest.param(framed({1: -7, 16: TYP}, unprotected={4: b"k"}), "malformed-message", id="unprotected header"),
        pytest.param(framed({1: -7, 16: TYP}, payload=None, signature=bytes(64)), "malformed-message", id="detached"),
        pytest.param(framed({1: -7, 16: TYP}, signature=b""), "malformed-message", id="no signature"),
        pytest.param(framed({1: -7, 16: TYP}, signature=bytes(64)), "bad-signature", id="a zero signature"),
        pytest.param(framed({1: -7, 16: TYP}, signature=bytes(65)), "malformed-message", id="a long signature"),
        pytest.param(framed({1: -7, 16: TYP}, signature=b"\xff" * 64), "malformed-message", id="s over the order"),
        pytest.param(framed({1: -7, 16: TYP}, signature=b"\xff" * 32 + bytes(31) + b"\1"), "bad-signature", id="r too"),
        pytest.param(framed({1: -7, 16: TYP}, tag=98), "malformed-message", id="COSE_Sign"),
        pytest.param(framed({1: -7, 16: TYP})[1:], "malformed-message", id="no tag"),
        pytest.param(b"\xd8\x12" + framed({1: -7, 16: TYP})[1:], "malformed-message", id="a long tag"),
        pytest.param(framed({1: -7, 16: TYP}) + b"\0", "malformed-message", id="a trailing byte"),
        pytest.param(framed(b""), "malformed-message", id="empty header"),
        pytest.param(bytes((16 << 20) + 1), "malformed-message", id="too large"),
    ],
)
def test_any_other_form_is_refused(message, code):
    assert refusal(message) == code


def test_the_order_of_nested_maps_counts_too():
    ordered = framed({1: -7, 16: TYP, -65537: {"b": 1, "aa": 2}})
    cose.verify(KIND, ordered, KEY.public_key())
    assert refusal(framed({1: -7, 16: TYP, -65537: {"aa": 2, "b": 1}})) == "malformed-message"


def test_maps_are_ordered_as_they_are_signed():
    header = {-65537: {"aa": [{"d": 1, "c": 2}], "b": 1}, 4: b"k"}
    signed_header = cose.parse(cose.sign(KIND, b"", KEY, protected=header)).protected_bytes
    assert signed_header == cose.dcbor({1: -7, 16: TYP, **header})


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=40),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(max_size=30), inner, max_size=5)
            | st.dictionaries(st.integers(0, 2**40), inner, max_size=5)
        ),
        max_leaves=10,
    )
)
@settings(max_examples=150, deadline=None)
def test_ordering_ourselves_gives_what_the_library_calls_canonical(value):
    assert cbor2.dumps(cose.in_order(value)) == cose.dcbor(value)


@given(data=st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_one_kind_of_error(data):
    refusal(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x18\x01",
        b"\x01\x01",
        b"\x9f\xff",
        b"\xa2\x02\x00\x01\x00",
        b"\xfb" + bytes(8),
        b"\xd8\x1c\x81\xd8\x1d\x00",
    ],
    ids=["empty", "a long number", "two values", "indefinite", "unordered", "a long float", "a cycle"],
)
def test_only_deterministic_cbor_is_loaded(data):
    with pytest.raises(cose.SignatureError, match="malformed-message"):
        cose.load_dcbor(data)
