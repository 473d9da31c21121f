"""The evidence collection (CMW): one accepted form."""

import cbor2
import pytest

from edgeclave import cose
from edgeclave.errors import EvidenceError
from edgeclave.evidence.collection import Collection, Item, decode_collection, encode_collection, evidence_digest

EAT, QUOTE = ["application/eat+cwt", b"eat"], ["application/x", b"quote"]


def refused(value):
    with pytest.raises(EvidenceError, match="malformed-evidence"):
        decode_collection(value if isinstance(value, bytes) else cose.dcbor(value))


def test_with_endorsements():
    collection = Collection(b"eat", Item("application/x", b"quote"), Item("application/y", b"endorsements"))
    encoded = encode_collection(collection)
    assert decode_collection(encoded) == collection
    assert len(evidence_digest(encoded)) == 32


@pytest.mark.parametrize(
    "value",
    [
        pytest.param([], id="no map"),
        pytest.param({}, id="empty"),
        pytest.param({"ta": EAT}, id="no platform"),
        pytest.param({"platform": QUOTE}, id="no EAT"),
        pytest.param({"ta": EAT, "platform": QUOTE, "more": QUOTE}, id="an unknown item"),
        pytest.param({"ta": EAT, "platform": QUOTE, 1: QUOTE}, id="a number as a name"),
        pytest.param({"ta": ["application/eat+jwt", b"eat"], "platform": QUOTE}, id="another kind of token"),
        pytest.param({"ta": EAT, "platform": b"quote"}, id="an item without media type"),
        pytest.param({"ta": EAT, "platform": [*QUOTE, 1]}, id="an item with an indicator"),
        pytest.param({"ta": EAT, "platform": [30001, b"quote"]}, id="a content format number"),
        pytest.param({"ta": EAT, "platform": ["x" * 129, b"quote"]}, id="a long media type"),
        pytest.param({"ta": EAT, "platform": ["application/x", "quote"]}, id="a text value"),
        pytest.param({"ta": EAT, "platform": QUOTE, "endorsements": None}, id="null endorsements"),
        pytest.param(b"\xa2" + cose.dcbor("ta") + cose.dcbor(EAT) + cose.dcbor("ta") + cose.dcbor(EAT), id="twice"),
        pytest.param(cbor2.dumps({"platform": QUOTE, "ta": EAT}), id="in another order"),
        pytest.param(b"\xbf" + cose.dcbor({"ta": EAT, "platform": QUOTE})[1:] + b"\xff", id="indefinite length"),
        pytest.param(b"\xb8\x02" + cose.dcbor({"ta": EAT, "platform": QUOTE})[1:], id="a longer length than needed"),
    ],
)
def test_any_other_form_is_refused(value):
    refused(value)


def test_more_than_the_limit_is_not_made():
    with pytest.raises(EvidenceError, match="over the limit"):
        encode_collection(Collection(b"eat", Item("application/x", bytes(64 << 10))))
