"""Sealed results: what opens, for whom, and what never does (PROTOCOL section 7)."""

import cbor2
import pytest
from cwt import COSE, COSEKey, Recipient
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave import cose
from edgeclave.errors import ResultError
from edgeclave.results import encryption
from edgeclave.results.sealed import (
    MAX_PAYLOAD_BYTES,
    MAX_RESULT_BYTES,
    NO_INPUTS,
    RESULT,
    RESULT_HEADER,
    VerifiedResult,
    content_digest,
    extend_inputs,
    open_result,
    open_with_salt,
    peek_result,
    seal,
    verify_result,
)


def refusal(function, *arguments):
    with pytest.raises(ResultError) as refused:
        function(*arguments)
    return refused.value.code


class TestGood:
    @pytest.mark.parametrize(
        "payload", [b"", b"x", b"x" * 1024, b"x" * MAX_PAYLOAD_BYTES], ids=["heartbeat", "a byte", "1 KiB", "the most"]
    )
    def test_what_is_sealed_opens(self, instance, payload):
        message = instance.seal(payload)
        assert len(message) <= MAX_RESULT_BYTES
        assert open_result(verify_result(message, instance.public_key), instance.reader_key) == payload

    def test_the_header_says_what_the_instance_said(self, instance):
        recipients = instance.recipients()
        header = instance.header(recipients)
        verified = verify_result(seal(header, b"", instance.signing_key, recipients), instance.public_key)
        assert verified.header == header
        assert verified.instance_id == cose.thumbprint(instance.public_key)

    def test_a_glimpse_finds_the_key(self, instance):
        message = instance.seal()
        peeked = peek_result(message)
        assert peeked.instance_id == cose.thumbprint(instance.public_key)
        assert peeked.header == verify_result(message, instance.public_key).header

    def test_every_recipient_opens_it(self, instance):
        others = [cose.generate_key() for _ in range(63)]
        message = instance.seal(b"for all", *others)
        verified = verify_result(message, instance.public_key)
        assert {open_result(verified, key) for key in (instance.reader_key, others[0], others[-1])} == {b"for all"}

    def test_the_same_result_sealed_twice_shares_no_secret(self, instance):
        first, second = (verify_result(instance.seal(b"same"), instance.public_key) for _ in range(2))
        assert first.content != second.content
        assert first.encrypted != second.encrypted

    def test_a_recipient_proves_the_content_to_a_third_party(self, instance):
        verified = verify_result(instance.seal(b"payload"), instance.public_key)
        opened = open_with_salt(verified, instance.reader_key)
        assert len(opened.salt) == 32
        assert content_digest(opened.salt, opened.payload) == verified.content
        assert content_digest(opened.salt, b"another payload") != verified.content


class TestNobodyElseOpensIt:
    def test_another_key(self, instance):
        verified = verify_result(instance.seal(), instance.public_key)
        assert refusal(open_result, verified, cose.generate_key()) == "not-a-recipient"

    def test_another_key_under_a_recipients_name(self, instance):
        """The thumbprint in the message is a label; the key agreement decides."""
        other = cose.generate_key()
        verified = verify_result(instance.seal(), instance.public_key)
        mine, theirs = cose.thumbprint(instance.reader_key), cose.thumbprint(other)
        renamed = verified.encrypted.replace(mine, theirs)
        assert refusal(open_result, replaced(verified, encrypted=renamed), other) == "cannot-open"


class TestBinding:
    def test_a_ciphertext_signed_again_by_another_instance_does_not_open(self, instance, other_instance):
        """With the very same header: all that differs is who signed."""
        signed = cose.parse(instance.seal())
        header = {
            cose.KID: cose.thumbprint(other_instance.public_key),
            RESULT_HEADER: signed.protected[RESULT_HEADER],
        }
        stolen = cose.sign(RESULT, signed.payload, other_instance.signing_key, protected=header)
        verified = verify_result(stolen, other_instance.public_key)
        assert refusal(open_result, verified, instance.reader_key) == "cannot-open"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("unique_id", b"v" * 32),
            ("signer_id", b"t" * 32),
            ("product_id", 8),
            ("security_version", 4),
            ("output", "summary"),
            ("epoch", 3),
            ("seq", 2),
            ("prev", b"p" * 32),
            ("evidence", b"f" * 32),
            ("recipients", [2, b"r" * 32]),
            ("beacon", None),
            ("calls", 6),
            ("inputs", b"i" * 32),
            ("assurance", "authenticated"),
            ("host_time", 0),
            ("content", b"c" * 32),
        ],
    )
    def test_a_ciphertext_under_another_header_does_not_open(self, instance, field, value):
        """Every field of R, even signed by the instance itself."""
        signed = cose.parse(instance.seal())
        assert field in signed.protected[RESULT_HEADER]
        header = {
            cose.KID: signed.protected[cose.KID],
            RESULT_HEADER: {**signed.protected[RESULT_HEADER], field: value},
        }
        verified = verify_result(
            cose.sign(RESULT, signed.payload, instance.signing_key, protected=header), instance.public_key
        )
        assert refusal(open_result, verified, instance.reader_key) == "cannot-open"

    def test_the_ciphertext_of_another_result_does_not_open(self, instance):
        first, second = (verify_result(instance.seal(b"same"), instance.public_key) for _ in range(2))
        assert refusal(open_result, replaced(first, encrypted=second.encrypted), instance.reader_key) == "cannot-open"

    def test_a_header_that_vouches_for_other_content_is_refused(self, instance):
        verified = verify_result(instance.seal(), instance.public_key)
        assert refusal(open_result, replaced(verified, content=bytes(32)), instance.reader_key) == "wrong-content"


class TestLibrary:
    """cwt binds what we rely on, on both sides: changing either alone makes opening fail."""

    def encrypted(self, instance, *, aad, other):
        context = [-5, [None] * 3, [None] * 3, [256, cbor2.dumps({1: -31}), other]]
        key = COSEKey.new({**cose.cose_key(instance.reader_key.public_key()), 3: -31})
        recipient = Recipient.new({1: -31}, {4: b"kid"}, recipient_key=key, context=context)
        content_key = COSEKey.generate_symmetric_key(alg="A256GCM")
        return COSE.new().encode_and_encrypt(
            b"payload", content_key, {1: 3}, {5: bytes(12)}, recipients=[recipient], external_aad=aad
        )

    def opened(self, instance, message, *, aad, other):
        context = [-5, [None] * 3, [None] * 3, [256, cbor2.dumps({1: -31}), other]]
        d = instance.reader_key.private_numbers().private_value.to_bytes(32, "big")
        key = COSEKey.new({**cose.cose_key(instance.reader_key.public_key()), 2: b"kid", 3: -31, -4: d})
        return COSE.new().decode(message, key, context=context, external_aad=aad)

    def test_both_right(self, instance):
        message = self.encrypted(instance, aad=b"aad", other=b"other")
        assert self.opened(instance, message, aad=b"aad", other=b"other") == b"payload"

    @pytest.mark.parametrize(("aad", "other"), [(b"aad", b"else"), (b"else", b"other"), (b"", b"other"), (b"aad", b"")])
    def test_one_wrong(self, instance, aad, other):
        message = self.encrypted(instance, aad=b"aad", other=b"other")
        with pytest.raises(Exception, match="Failed to"):
            self.opened(instance, message, aad=aad, other=other)

    @pytest.mark.parametrize("side", ["external_aad", "SuppPubInfo.other"])
    def test_ours_are_not_empty(self, instance, monkeypatch, side):
        verified = verify_result(instance.seal(), instance.public_key)
        if side == "external_aad":
            broken = replaced(verified, binding=b"")
            assert refusal(open_result, broken, instance.reader_key) == "cannot-open"
        else:
            real = encryption._context
            monkeypatch.setattr(encryption, "_context", lambda _, thumbprint: real(b"", thumbprint))
            assert refusal(open_result, verified, instance.reader_key) == "cannot-open"


class TestAltered:
    def test_every_flipped_byte_is_refused(self, instance):
        message = instance.seal()
        for position in range(len(message)):
            altered = bytearray(message)
            altered[position] ^= 0x01
            refusal(verify_result, bytes(altered), instance.public_key)

    def test_every_truncation_is_refused(self, instance):
        message = instance.seal()
        for length in range(0, len(message), 13):
            assert refusal(verify_result, message[:length], instance.public_key) == "malformed-message"

    @pytest.mark.parametrize("more", [b"\0", b"\xf6", bytes(1000)], ids=["a zero", "a null", "many zeros"])
    def test_trailing_bytes_are_refused(self, instance, more):
        assert refusal(verify_result, instance.seal() + more, instance.public_key) == "malformed-message"

    def test_the_other_root_of_the_signature_is_refused(self, instance):
        """s and order - s both verify in ECDSA; with both, a host could make another digest of the same result."""
        message = instance.seal()
        order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        s = int.from_bytes(message[-32:], "big")
        twin = message[:-32] + (order - s).to_bytes(32, "big")
        assert refusal(verify_result, twin, instance.public_key) == "malformed-message"

    def test_another_instance_is_refused(self, instance, other_instance):
        assert refusal(verify_result, instance.seal(), other_instance.public_key) == "bad-signature"

    def test_a_result_that_names_another_instance_is_refused(self, instance):
        signed = cose.parse(instance.seal())
        header = {cose.KID: b"k" * 32, RESULT_HEADER: signed.protected[RESULT_HEADER]}
        message = cose.sign(RESULT, signed.payload, instance.signing_key, protected=header)
        assert refusal(verify_result, message, instance.public_key) == "wrong-instance"

    def test_too_much_is_refused_unparsed(self, instance):
        assert refusal(verify_result, bytes(MAX_RESULT_BYTES + 1), instance.public_key) == "malformed-message"
        assert refusal(peek_result, bytes(MAX_RESULT_BYTES + 1)) == "malformed-message"

    @given(data=st.binary(max_size=300))
    @settings(max_examples=200, deadline=None)
    def test_any_bytes_give_one_kind_of_error(self, instance, data):
        refusal(verify_result, data, instance.public_key)
        refusal(peek_result, data)

    @given(data=st.data())
    @settings(max_examples=200, deadline=None)
    def test_any_inside_gives_one_kind_of_error(self, instance, data):
        verified = verify_result(instance.seal(), instance.public_key)
        inside = bytearray(verified.encrypted)
        for _ in range(data.draw(st.integers(1, 4))):
            inside[data.draw(st.integers(0, len(inside) - 1))] = data.draw(st.integers(0, 255))
        if bytes(inside) != verified.encrypted:
            refusal(open_result, replaced(verified, encrypted=bytes(inside)), instance.reader_key)


class TestHeader:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            pytest.param("unique_id", b"short", id="a short digest"),
            pytest.param("product_id", 65536, id="a large product"),
            pytest.param("product_id", "7", id="a text product"),
            pytest.param("seq", 0, id="sequence zero"),
            pytest.param("seq", True, id="a bool sequence"),
            pytest.param("seq", 1 << 60, id="a huge sequence"),
            pytest.param("prev", None, id="no predecessor"),
            pytest.param("output", "../etc", id="a path as an output"),
            pytest.param("recipients", [1], id="recipients without digest"),
            pytest.param("beacon", [1, b"short"], id="a short beacon"),
            pytest.param("beacon", [1, bytes(65)], id="a long beacon"),
            pytest.param("assurance", "perfect", id="an unknown assurance"),
            pytest.param("host_time", -1, id="negative time"),
            pytest.param("content", b"short", id="short content"),
            pytest.param("content", None, id="null content"),
            pytest.param("more", 1, id="an unknown field"),
        ],
    )
    def test_a_wrong_field_is_refused(self, instance, field, value):
        fields = {**cose.parse(instance.seal()).protected[RESULT_HEADER], field: value}
        message = self.signed(instance, {RESULT_HEADER: fields})
        assert refusal(verify_result, message, instance.public_key) == "malformed-result"
        assert refusal(peek_result, message) == "malformed-result"

    @pytest.mark.parametrize("missing", ["unique_id", "seq", "beacon", "content", "host_time"])
    def test_a_missing_field_is_refused(self, instance, missing):
        fields = cose.parse(instance.seal()).protected[RESULT_HEADER]
        del fields[missing]
        message = self.signed(instance, {RESULT_HEADER: fields})
        assert refusal(verify_result, message, instance.public_key) == "malformed-result"

    @pytest.mark.parametrize("value", [None, [], 1, b""], ids=["null", "a list", "a number", "bytes"])
    def test_no_header_at_all_is_refused(self, instance, value):
        message = self.signed(instance, {RESULT_HEADER: value})
        assert refusal(verify_result, message, instance.public_key) == "malformed-result"

    def test_unknown_header_parameters_are_refused(self, instance):
        fields = cose.parse(instance.seal()).protected[RESULT_HEADER]
        message = self.signed(instance, {RESULT_HEADER: fields, -65538: 1})
        assert refusal(verify_result, message, instance.public_key) == "malformed-message"

    @pytest.mark.parametrize(
        "changes",
        [{"sequence": 0}, {"assurance": "perfect"}, {"product_id": 65536}],
        ids=["seq", "assurance", "product"],
    )
    def test_what_nobody_would_accept_is_not_sealed(self, instance, changes):
        with pytest.raises(ResultError, match="malformed-result"):
            instance.seal(**changes)

    def test_too_large_a_payload_is_not_sealed(self, instance):
        with pytest.raises(ResultError, match="payload-too-large"):
            instance.seal(bytes(MAX_PAYLOAD_BYTES + 1))

    def test_a_header_for_another_recipient_set_is_not_sealed(self, instance):
        with pytest.raises(ResultError, match="wrong-recipients"):
            instance.seal(recipients=(2, b"r" * 32))
        with pytest.raises(ResultError, match="wrong-recipients"):
            instance.seal(output="summary")

    def signed(self, instance, header):
        named = {cose.KID: cose.thumbprint(instance.public_key), **header}
        return cose.sign(RESULT, b"payload", instance.signing_key, protected=named)


class TestInside:
    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda tag: cbor2.CBORTag(16, tag.value), id="another tag"),
            pytest.param(lambda tag: tag.value, id="no tag"),
            pytest.param(lambda tag: with_value(tag, 0, cbor2.dumps({1: 1})), id="A128GCM"),
            pytest.param(lambda tag: with_value(tag, 0, b""), id="no algorithm"),
            pytest.param(lambda tag: with_value(tag, 1, {5: bytes(11)}), id="a short IV"),
            pytest.param(lambda tag: with_value(tag, 1, {**tag.value[1], 4: b"k"}), id="one parameter more"),
            pytest.param(lambda tag: with_value(tag, 2, None), id="no ciphertext"),
            pytest.param(lambda tag: with_value(tag, 3, []), id="no recipient"),
            pytest.param(lambda tag: with_value(tag, 3, tag.value[3] * 2), id="one recipient twice"),
            pytest.param(lambda tag: with_value(tag, 3, tag.value[3] * 65), id="too many recipients"),
            pytest.param(lambda tag: with_recipient(tag, 0, cbor2.dumps({1: -29})), id="A128KW"),
            pytest.param(lambda tag: with_recipient(tag, 2, bytes(24)), id="a shorter wrapped key"),
            pytest.param(lambda tag: with_recipient(tag, 1, {4: b"k" * 32}), id="no ephemeral key"),
        ],
    )
    def test_another_form_is_refused(self, instance, change):
        verified = verify_result(instance.seal(), instance.public_key)
        inside = cbor2.dumps(change(cbor2.loads(verified.encrypted)))
        code = refusal(open_result, replaced(verified, encrypted=inside), instance.reader_key)
        assert code == "malformed-result"

    def test_an_ephemeral_key_off_the_curve_does_not_open(self, instance):
        verified = verify_result(instance.seal(), instance.public_key)
        tag = cbor2.loads(verified.encrypted)
        tag.value[3][0][1][-1][-2] = bytes(32)
        broken = replaced(verified, encrypted=cbor2.dumps(tag))
        assert refusal(open_result, broken, instance.reader_key) == "cannot-open"


def test_the_input_chain_covers_method_payload_and_assurance():
    base = extend_inputs(NO_INPUTS, "observe", b"{}", "none")
    others = [
        extend_inputs(base, "observe", b"{}", "none"),
        extend_inputs(NO_INPUTS, "observe2", b"{}", "none"),
        extend_inputs(NO_INPUTS, "observe", b"{ }", "none"),
        extend_inputs(NO_INPUTS, "observe", b"{}", "confidential"),
    ]
    assert len({base, *others}) == 5


def replaced(verified, **changes):
    fields = {name: getattr(verified, name) for name in VerifiedResult.__dataclass_fields__}
    return VerifiedResult(**{**fields, **changes})


def with_value(tag, index, value):
    tag.value[index] = value
    return tag


def with_recipient(tag, index, value):
    tag.value[3][0][index] = value
    return tag
