"""The emulator's quote: every field checked, one accepted form."""

import pytest

from edgeclave import cose
from edgeclave.errors import EvidenceError
from edgeclave.evidence.emulator import QUOTE, make_quote, parse_quote, platform_instance, verify_quote

GOOD = {"report_data": bytes(64), "runtime_digest": bytes(32), "debug": False}


@pytest.fixture(scope="module")
def key():
    return cose.generate_key()


def signed(key, fields, kid=None):
    header = {cose.KID: kid or cose.thumbprint(key.public_key())}
    return cose.sign(QUOTE, cose.dcbor(fields), key, protected=header)


def refusal(quote, key):
    with pytest.raises(EvidenceError) as refused:
        verify_quote(quote, key.public_key())
    return refused.value.code


def test_what_is_written_is_read(key):
    quote = verify_quote(make_quote(key, b"d" * 64, b"r" * 32, True), key.public_key())
    assert (quote.report_data, quote.runtime_digest, quote.debug) == (b"d" * 64, b"r" * 32, True)
    assert parse_quote(make_quote(key, b"d" * 64, b"r" * 32, True))[1] == platform_instance(key.public_key())


@pytest.mark.parametrize(
    "change",
    [
        {"report_data": bytes(63)},
        {"report_data": bytes(65)},
        {"runtime_digest": bytes(31)},
        {"runtime_digest": "text"},
        {"debug": 0},
        {"debug": None},
        {"class": "sgx"},
    ],
    ids=["short data", "long data", "short digest", "text digest", "debug as int", "null debug", "one field more"],
)
def test_a_wrong_field_is_refused(key, change):
    assert refusal(signed(key, {**GOOD, **change}), key) == "malformed-quote"


@pytest.mark.parametrize("missing", list(GOOD))
def test_a_missing_field_is_refused(key, missing):
    assert refusal(signed(key, {name: GOOD[name] for name in GOOD if name != missing}), key) == "malformed-quote"


def test_a_quote_that_names_another_key_is_refused(key):
    assert refusal(signed(key, GOOD, kid=bytes(32)), key) == "malformed-quote"


def test_a_quote_that_names_no_key(key):
    with pytest.raises(EvidenceError, match="malformed-quote"):
        parse_quote(cose.sign(QUOTE, cose.dcbor(GOOD), key))


def test_a_quote_by_another_key_is_refused(key):
    assert refusal(signed(cose.generate_key(), GOOD, kid=cose.thumbprint(key.public_key())), key) == (
        "bad-quote-signature"
    )


def test_no_message_at_all(key):
    assert refusal(b"", key) == "malformed-quote"
    with pytest.raises(EvidenceError, match="malformed-quote"):
        parse_quote(b"")


@pytest.mark.parametrize(
    ("report_data", "runtime"), [(bytes(63), bytes(32)), (bytes(64), bytes(33))], ids=["short data", "long digest"]
)
def test_a_quote_that_nobody_would_accept_is_not_made(key, report_data, runtime):
    with pytest.raises(EvidenceError, match="malformed-quote"):
        make_quote(key, report_data, runtime, False)
