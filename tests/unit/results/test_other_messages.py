"""Recipient sets, open and close records and beacons: one accepted form each."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave import cose
from edgeclave.errors import ResultError
from edgeclave.results.beacon import BEACON, Beacon, sign_beacon, verify_beacon
from edgeclave.results.instance import peek_instance
from edgeclave.results.recipients import (
    MAX_RECIPIENTS,
    RECIPIENTS,
    sign_recipient_set,
    verify_recipient_set,
)
from edgeclave.results.records import (
    CLOSE,
    OPEN,
    CloseRecord,
    OpenRecord,
    sign_close,
    sign_open,
    verify_close,
    verify_open,
)
from edgeclave.ta.identity import Identity

IDENTITY = Identity(b"u" * 32, b"s" * 32, 7, 3, False)
HEADS = {"anomalies": (4, b"a" * 32), "summary": (1, b"b" * 32)}


@pytest.fixture(scope="module")
def key():
    return cose.generate_key()


@pytest.fixture(scope="module")
def keys():
    return [cose.generate_key().public_key() for _ in range(3)]


def refusal(function, *arguments):
    with pytest.raises(ResultError) as refused:
        function(*arguments)
    return refused.value.code


class TestRecipientSet:
    def fields(self, keys):
        ordered = sorted(keys, key=cose.thumbprint)
        return {"output": "anomalies", "version": 2, "keys": [cose.cose_key(key) for key in ordered]}

    def signed(self, key, fields):
        return cose.sign(RECIPIENTS, cose.dcbor(fields), key)

    def test_what_is_signed_is_read(self, key, keys):
        message = sign_recipient_set("anomalies", 2, keys, key)
        recipients = verify_recipient_set(message, key.public_key())
        assert (recipients.output, recipients.version) == ("anomalies", 2)
        assert recipients.keys == tuple(sorted(keys, key=cose.thumbprint))
        assert recipients.digest == cose.sha256(message)

    def test_the_order_given_does_not_matter(self, key, keys):
        first, second = (cose.parse(sign_recipient_set("o", 1, order, key)) for order in (keys, keys[::-1]))
        assert first.payload == second.payload

    def test_another_authority_is_refused(self, key, keys):
        message = sign_recipient_set("anomalies", 1, keys, cose.generate_key())
        assert refusal(verify_recipient_set, message, key.public_key()) == "wrong-recipient-authority"

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"keys": []}, id="nobody"),
            pytest.param({"version": -1}, id="a negative version"),
            pytest.param({"version": "2"}, id="a text version"),
            pytest.param({"output": ""}, id="no output"),
            pytest.param({"output": None}, id="a null output"),
            pytest.param({"until": 1}, id="an unknown field"),
            pytest.param({"keys": [{1: 2, -1: 1, -2: bytes(32), -3: bytes(32)}]}, id="a point off the curve"),
            pytest.param({"keys": [{1: 1, -1: 4, -2: bytes(32)}]}, id="a key of another kind"),
            pytest.param({"keys": [b"key"]}, id="no key"),
        ],
    )
    def test_a_wrong_field_is_refused(self, key, keys, change):
        message = self.signed(key, {**self.fields(keys), **change})
        assert refusal(verify_recipient_set, message, key.public_key()) == "bad-recipient-set"

    def test_keys_in_another_order_or_twice_are_refused(self, key, keys):
        fields = self.fields(keys)
        for wrong in (fields["keys"][::-1], fields["keys"][:1] * 2):
            message = self.signed(key, {**fields, "keys": wrong})
            assert refusal(verify_recipient_set, message, key.public_key()) == "bad-recipient-set"

    def test_a_private_key_in_the_set_is_refused(self, key, keys):
        fields = self.fields(keys[:1])
        fields["keys"][0][-4] = bytes(32)
        assert refusal(verify_recipient_set, self.signed(key, fields), key.public_key()) == "bad-recipient-set"

    @pytest.mark.parametrize(
        ("output", "version", "number"),
        [("anomalies", 1, 0), ("anomalies", 1, MAX_RECIPIENTS + 1), ("an output", 1, 1), ("anomalies", -1, 1)],
        ids=["nobody", "too many", "a bad output", "a negative version"],
    )
    def test_what_nobody_would_obey_is_not_signed(self, key, output, version, number):
        readers = [cose.generate_key().public_key() for _ in range(number)]
        assert refusal(sign_recipient_set, output, version, readers, key) == "bad-recipient-set"

    def test_one_reader_twice_is_not_signed(self, key, keys):
        assert refusal(sign_recipient_set, "o", 1, [keys[0], keys[0]], key) == "bad-recipient-set"

    def test_the_largest_set_is_within_the_limit(self, key):
        readers = [cose.generate_key().public_key() for _ in range(MAX_RECIPIENTS)]
        message = sign_recipient_set("o" * 64, (1 << 53) - 1, readers, key)
        assert len(verify_recipient_set(message, key.public_key()).keys) == MAX_RECIPIENTS


class TestRecords:
    def test_an_open_record_is_read_as_written(self, key):
        record = OpenRecord(2, "anomaly", b"e" * 32, IDENTITY, b"p" * 32, HEADS)
        message = sign_open(record, key)
        verified = verify_open(message, key.public_key())
        assert verified.record == record
        assert verified.instance_id == cose.thumbprint(key) == peek_instance(message)
        assert verified.digest == cose.sha256(message)

    def test_a_close_record_is_read_as_written(self, key):
        record = CloseRecord(2, "anomaly", HEADS)
        assert verify_close(sign_close(record, key), key.public_key()).record == record

    def test_genesis(self, key):
        record = OpenRecord(1, "anomaly", b"e" * 32, IDENTITY, None, {})
        assert verify_open(sign_open(record, key), key.public_key()).record == record
        with_heads = OpenRecord(1, "anomaly", b"e" * 32, IDENTITY, None, HEADS)
        assert refusal(sign_open, with_heads, key) == "malformed-record"

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"epoch": -1}, id="a negative epoch"),
            pytest.param({"slot": "a/b"}, id="a slot with a slash"),
            pytest.param({"evidence": b"short"}, id="a short digest"),
            pytest.param({"identity": {}}, id="no identity"),
            pytest.param({"predecessor": b"short"}, id="a short predecessor"),
            pytest.param({"predecessor": None}, id="genesis with heads"),
            pytest.param({"heads": {"anomalies": [0, bytes(32)]}}, id="a head at zero"),
            pytest.param({"heads": {"anomalies": [1, b"short"]}}, id="a head with a short digest"),
            pytest.param({"heads": {f"o{n}": [1, bytes(32)] for n in range(65)}}, id="too many heads"),
            pytest.param({"heads": None}, id="no heads"),
            pytest.param({"more": 1}, id="an unknown field"),
        ],
    )
    def test_a_wrong_open_record_is_refused(self, key, change):
        fields = {
            "epoch": 2,
            "slot": "anomaly",
            "evidence": b"e" * 32,
            "identity": IDENTITY.to_map(),
            "predecessor": b"p" * 32,
            "heads": {"anomalies": [1, bytes(32)]},
        }
        assert self.verified(key, OPEN, fields, verify_open) is None
        assert self.verified(key, OPEN, {**fields, **change}, verify_open) == "malformed-record"

    @pytest.mark.parametrize(
        "change", [{"epoch": "2"}, {"slot": ""}, {"heads": []}, {"more": 1}], ids=["epoch", "slot", "heads", "unknown"]
    )
    def test_a_wrong_close_record_is_refused(self, key, change):
        fields = {"epoch": 2, "slot": "anomaly", "heads": {}}
        assert self.verified(key, CLOSE, fields, verify_close) is None
        assert self.verified(key, CLOSE, {**fields, **change}, verify_close) == "malformed-record"

    def test_another_instance_is_refused(self, key):
        message = sign_close(CloseRecord(1, "anomaly", {}), key)
        assert refusal(verify_close, message, cose.generate_key().public_key()) == "bad-signature"

    def test_a_record_that_names_another_instance_is_refused(self, key):
        fields = cose.dcbor({"epoch": 2, "slot": "anomaly", "heads": {}})
        message = cose.sign(CLOSE, fields, key, protected={cose.KID: b"k" * 32})
        assert refusal(verify_close, message, key.public_key()) == "wrong-instance"

    def test_a_record_that_names_no_instance_is_refused(self, key):
        message = cose.sign(CLOSE, cose.dcbor({"epoch": 2, "slot": "anomaly", "heads": {}}), key)
        assert refusal(verify_close, message, key.public_key()) == "malformed-message"
        assert refusal(peek_instance, message) == "malformed-message"

    def test_the_largest_record_is_within_the_limit(self, key):
        heads = {f"{'o' * 60}{n}": ((1 << 53) - 1, b"h" * 32) for n in range(64)}
        record = OpenRecord((1 << 53) - 1, "s" * 64, b"e" * 32, IDENTITY, b"p" * 32, heads)
        assert verify_open(sign_open(record, key), key.public_key()).record == record

    def verified(self, key, kind, fields, verify):
        message = cose.sign(kind, cose.dcbor(fields), key, protected={cose.KID: cose.thumbprint(key)})
        try:
            verify(message, key.public_key())
        except ResultError as error:
            return error.code
        return None


class TestBeacon:
    def test_what_is_signed_is_read(self, key):
        beacon = Beacon(3, bytes(16))
        assert verify_beacon(sign_beacon(beacon, key), key.public_key()) == beacon

    @pytest.mark.parametrize(
        "beacon", [Beacon(-1, bytes(16)), Beacon(1, bytes(15)), Beacon(1, bytes(65))], ids=["number", "short", "long"]
    )
    def test_what_nobody_would_obey_is_not_signed(self, key, beacon):
        assert refusal(sign_beacon, beacon, key) == "bad-beacon"

    @pytest.mark.parametrize(
        "fields",
        [{}, {"number": 1}, {"number": 1, "value": bytes(15)}, {"number": 1, "value": bytes(16), "time": 1}],
        ids=["empty", "no value", "a short value", "a time"],
    )
    def test_a_wrong_beacon_is_refused(self, key, fields):
        assert refusal(verify_beacon, cose.sign(BEACON, cose.dcbor(fields), key), key.public_key()) == "bad-beacon"

    def test_another_authority_is_refused(self, key):
        message = sign_beacon(Beacon(3, bytes(16)), cose.generate_key())
        assert refusal(verify_beacon, message, key.public_key()) == "wrong-beacon-authority"

    def test_unknown_header_parameters_are_refused(self, key):
        fields = cose.dcbor({"number": 1, "value": bytes(16)})
        message = cose.sign(BEACON, fields, key, protected={cose.KID: b"k"})
        assert refusal(verify_beacon, message, key.public_key()) == "bad-beacon"


VERIFIERS = [verify_recipient_set, verify_open, verify_close, verify_beacon]


@pytest.mark.parametrize("verify", VERIFIERS)
class TestAnyBytes:
    @given(data=st.binary(max_size=300))
    @settings(max_examples=100, deadline=None)
    def test_give_one_kind_of_error(self, key, verify, data):
        refusal(verify, data, key.public_key())

    def test_too_many_are_refused_unparsed(self, key, verify):
        refusal(verify, bytes(17 << 10), key.public_key())
