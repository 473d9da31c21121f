"""The EAT: one accepted form, every claim checked."""

import cbor2
import pytest

from edgeclave import cose
from edgeclave.errors import EvidenceError
from edgeclave.evidence.eat import EAT, Epoch, make_eat, read_eat, report_data
from edgeclave.ta.identity import Identity

CNF, NONCE, DBGSTAT, PROFILE = 8, 10, 263, 265
CHANNEL, APP, EPOCH, STORAGE, RECIPIENTS, HOST_TIME = -65537, -65538, -65539, -65540, -65541, -65542


def signed(platform, values, **protected):
    return cose.sign(EAT, cose.dcbor(values), platform.signing_key, **protected)


@pytest.fixture
def values(platform):
    return cbor2.loads(cose.parse(platform.eat()).payload)


def refusal(eat):
    with pytest.raises(EvidenceError) as refused:
        read_eat(eat)
    return refused.value.code


def test_numbers_on_the_wire(values):
    assert set(values) == {CNF, NONCE, DBGSTAT, PROFILE, CHANNEL, APP, EPOCH, STORAGE, RECIPIENTS, HOST_TIME}
    assert values[DBGSTAT] == 1
    assert values[PROFILE] == "tag:edgeclave.example,2026:evidence/1"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nonce": None},
        {"nonce": bytes(8)},
        {"nonce": bytes(64)},
        {"host_time": None},
        {"recipients": {}},
        {"epoch": Epoch(1, "tpm-nv", None)},
        {"epoch": Epoch(1, "emulated", None)},
        {"storage_level": "rollback-protected"},
        {"identity": Identity(bytes(32), bytes(32), 0, 65535, True)},
    ],
    ids=[
        "all",
        "no nonce",
        "short nonce",
        "long nonce",
        "no time",
        "no outputs",
        "counter",
        "emulated counter",
        "rollback",
        "debug",
    ],
)
def test_what_is_written_is_read(platform, changes):
    claims = platform.claims(**changes)
    assert read_eat(make_eat(claims, platform.signing_key)) == claims


@pytest.mark.parametrize(
    "changes",
    [{"nonce": bytes(7)}, {"nonce": bytes(65)}, {"host_time": -1}, {"recipients": {"": (1, bytes(32))}}],
    ids=["nonce too short", "nonce too long", "negative time", "output without name"],
)
def test_claims_that_nobody_would_accept_are_not_made(platform, changes):
    with pytest.raises(EvidenceError, match="malformed-claims"):
        platform.eat(**changes)


@pytest.mark.parametrize("claim", [CNF, DBGSTAT, PROFILE, CHANNEL, APP, EPOCH, STORAGE, RECIPIENTS])
def test_a_missing_claim_is_refused(platform, values, claim):
    del values[claim]
    assert refusal(signed(platform, values)) == "malformed-claims"


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        pytest.param(4, 2_000_000_000, id="exp, for evidence has no trusted time"),
        pytest.param(6, 1_700_000_000, id="iat"),
        pytest.param("name", "anomaly", id="an unknown claim"),
        pytest.param(PROFILE, "tag:edgeclave.example,2026:evidence/2", id="another profile"),
        pytest.param(NONCE, bytes(7), id="a short nonce"),
        pytest.param(NONCE, bytes(65), id="a long nonce"),
        pytest.param(NONCE, "text of 16 chars", id="a text nonce"),
        pytest.param(NONCE, None, id="a null nonce"),
        pytest.param(NONCE, [bytes(16), bytes(16)], id="two nonces"),
        pytest.param(DBGSTAT, 0, id="debug against the identity"),
        pytest.param(DBGSTAT, 1.0, id="dbgstat as a float"),
        pytest.param(DBGSTAT, True, id="dbgstat as a bool"),
        pytest.param(STORAGE, "perfect", id="an unknown storage level"),
        pytest.param(EPOCH, {"number": 1, "source": "clock", "predecessor": None}, id="an unknown counter"),
        pytest.param(EPOCH, {"number": -1, "source": "none", "predecessor": None}, id="a negative epoch"),
        pytest.param(EPOCH, {"number": 1 << 60, "source": "none", "predecessor": None}, id="a huge epoch"),
        pytest.param(EPOCH, {"number": 1, "source": "none", "predecessor": b"short"}, id="a short predecessor"),
        pytest.param(EPOCH, {"number": 1, "source": "none"}, id="no predecessor at all"),
        pytest.param(RECIPIENTS, {"anomalies": [1, b"short"]}, id="a short recipients digest"),
        pytest.param(RECIPIENTS, {"anomalies": [1]}, id="recipients without digest"),
        pytest.param(RECIPIENTS, {"an output": [1, bytes(32)]}, id="an output name with a space"),
        pytest.param(RECIPIENTS, {f"o{n}": [1, bytes(32)] for n in range(65)}, id="too many outputs"),
        pytest.param(HOST_TIME, -1, id="negative host time"),
        pytest.param(HOST_TIME, None, id="null host time"),
        pytest.param(APP, {}, id="no identity"),
        pytest.param(CHANNEL, {1: 2, -1: 1, -2: bytes(32), -3: bytes(32)}, id="a channel key off the curve"),
    ],
)
def test_a_wrong_claim_is_refused(platform, values, claim, value):
    assert refusal(signed(platform, {**values, claim: value})) == "malformed-claims"


@pytest.mark.parametrize(
    "change",
    [
        {"unique_id": b"short"},
        {"product_id": 65536},
        {"security_version": -1},
        {"security_version": 3.0},
        {"debug": 0},
        {"more": 1},
    ],
    ids=["short digest", "large product", "negative version", "float version", "debug as int", "one field more"],
)
def test_a_wrong_identity_is_refused(platform, values, change):
    assert refusal(signed(platform, {**values, APP: {**values[APP], **change}})) == "malformed-claims"


@pytest.mark.parametrize(
    "confirmation",
    [None, {}, {1: {}}, {2: bytes(16)}, {1: {1: 2, -1: 1, -2: bytes(32), -3: bytes(32)}}],
    ids=["null", "empty", "an empty key", "an encrypted key", "a point off the curve"],
)
def test_a_wrong_confirmation_key_is_refused(platform, values, confirmation):
    assert refusal(signed(platform, {**values, CNF: confirmation})) in ("malformed-claims", "malformed-evidence")


def test_a_key_in_another_encoding_is_refused(platform, values):
    values[CNF][1][-1] = 1.0
    assert refusal(signed(platform, values)) == "malformed-evidence"


def test_unknown_header_parameters_are_refused(platform, values):
    assert refusal(signed(platform, values, protected={cose.KID: b"k"})) == "malformed-claims"


def test_claims_in_another_order_are_refused(platform, values):
    payload = cbor2.dumps(dict(reversed(values.items())))
    assert refusal(cose.sign(EAT, payload, platform.signing_key)) == "malformed-evidence"


def test_too_long_an_eat_is_refused(platform, values):
    assert refusal(signed(platform, {**values, PROFILE: "x" * (33 << 10)})) == "malformed-evidence"


def test_report_data_covers_header_and_claims_and_ends_in_zeros(platform, values):
    data = report_data(platform.eat())
    assert len(data) == 64
    assert data[32:] == bytes(32)
    assert data == report_data(platform.eat())  # the signature is no part of it
    assert data != report_data(signed(platform, {**values, STORAGE: "rollback-protected"}))
    assert data != report_data(signed(platform, values, protected={cose.KID: b"k"}))


def test_report_data_of_no_message(platform):
    with pytest.raises(EvidenceError, match="malformed-evidence"):
        report_data(b"no message")
