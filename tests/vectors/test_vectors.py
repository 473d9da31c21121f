"""docs/vectors: what a second implementation makes, edgeclave reads, and the other way round; and neither drifts."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap

from edgeclave import cose
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.collection import evidence_digest
from edgeclave.evidence.eat import Claims, Epoch, make_eat, report_data
from edgeclave.evidence.emulator import make_quote
from edgeclave.evidence.policy import Policy, TrustedApp
from edgeclave.evidence.reference import Reference
from edgeclave.evidence.verifier import Verifier
from edgeclave.results.beacon import Beacon, sign_beacon, verify_beacon
from edgeclave.results.recipients import sign_recipient_set, verify_recipient_set
from edgeclave.results.records import sign_close, sign_open, verify_close, verify_open
from edgeclave.results.sealed import (
    NO_INPUTS,
    extend_inputs,
    open_with_salt,
    peek_result,
    seal,
    verify_result,
)

FOLDER = Path(__file__).parents[2] / "docs" / "vectors"
FILES = ("beacon", "evidence", "keys", "recipients", "records", "result")


def _load_reference():
    spec = importlib.util.spec_from_file_location("reference", Path(__file__).with_name("reference.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = _load_reference()
VECTORS = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in FILES}


def private(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int(VECTORS["keys"][name]["d"], 16), ec.SECP256R1())


def public(name: str) -> ec.EllipticCurvePublicKey:
    return private(name).public_key()


def raw(file: str, *path: str) -> bytes:
    value = VECTORS[file]
    for name in path:
        value = value[name]
    return bytes.fromhex(value)


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_what_the_reference_writes(name):
    """Run `python tests/vectors/reference.py` after a change that is meant."""
    assert (FOLDER / f"{name}.json").read_text() == reference.text(reference.vectors()[name])


def test_the_reference_imports_nothing_of_edgeclave():
    source = Path(reference.__file__).read_text()
    assert "import edgeclave" not in source
    assert "from edgeclave" not in source


class TestEdgeclaveReads:
    def test_keys(self):
        for name, key in VECTORS["keys"].items():
            assert cose.thumbprint(public(name)).hex() == key["thumbprint"]

    def test_beacon(self):
        beacon = verify_beacon(raw("beacon", "message"), public("beacon authority"))
        assert cose.dcbor({"number": beacon.number, "value": beacon.value}) == raw("beacon", "payload")

    def test_recipient_set(self):
        recipients = verify_recipient_set(raw("recipients", "message"), public("recipient authority"))
        assert recipients.digest == raw("recipients", "digest")
        assert set(recipients.thumbprints) == {cose.thumbprint(public(name)) for name in ("reader", "second reader")}

    def test_evidence(self):
        evidence = raw("evidence", "collection")
        policy = Policy(
            anchors=(Anchor("emulator", "emulated", public("attestation")),),
            runtime={"emulator": Reference({"digest": raw("evidence", "runtime_digest")})},
            classes=frozenset({"emulated"}),
            trusted_apps=(TrustedApp(unique_id=reference.fixed("unique_id")),),
            freshness="nonce",
        )
        result = Verifier(policy).verify(evidence, nonce=reference.fixed("nonce", 16), now=0)
        assert result.instance_id == cose.thumbprint(public("instance"))
        assert result.channel_key == public("channel")
        assert result.evidence_digest == raw("evidence", "digest") == evidence_digest(evidence)
        assert report_data(raw("evidence", "eat", "message")) == raw("evidence", "eat", "report_data")

    def test_records(self):
        opened = verify_open(raw("records", "open", "message"), public("instance"))
        closed = verify_close(raw("records", "close", "message"), public("instance"))
        assert opened.digest == raw("records", "open", "digest")
        assert opened.record.evidence_digest == raw("evidence", "digest")
        assert closed.record.heads == {"anomalies": (1, raw("result", "digest"))}

    @pytest.mark.parametrize("reader", ["reader", "second reader"])
    def test_result(self, reader):
        verified = verify_result(raw("result", "message"), public("instance"))
        opened = open_with_salt(verified, private(reader))
        assert (opened.salt, opened.payload) == (raw("result", "salt"), raw("result", "payload"))
        assert verified.binding == raw("result", "x")
        assert verified.content == raw("result", "content")
        assert verified.digest == raw("result", "digest")
        assert verified.header.previous == raw("records", "open", "digest")

    def test_input_chain(self):
        inputs = VECTORS["result"]["inputs"]
        chain = extend_inputs(NO_INPUTS, inputs["method"], bytes.fromhex(inputs["payload"]), inputs["assurance"])
        assert chain.hex() == inputs["chain"]


class TestReferenceReads:
    """Messages made now by edgeclave, read by the second implementation."""

    def test_signed_messages(self):
        key = cose.generate_key()
        opened = verify_open(raw("records", "open", "message"), public("instance")).record
        closed = verify_close(raw("records", "close", "message"), public("instance")).record
        claims = Claims(
            None, key.public_key(), public("channel"), opened.identity, Epoch(1, "none", None), "consistent", {}, None
        )
        eat = make_eat(claims, key)
        messages = {
            "open": sign_open(opened, key),
            "close": sign_close(closed, key),
            "beacon": sign_beacon(Beacon(1, bytes(16)), key),
            "recipients": sign_recipient_set("anomalies", 1, [public("reader")], key),
            "eat": eat,
            "quote": make_quote(key, reference.report_data(eat), bytes(32), False),
        }
        for kind, message in messages.items():
            reference.verify(kind, message, key.public_key())
        for kind, message in messages.items():
            payload = reference.verify(kind, message, key.public_key())[1]
            if kind in ("open", "close"):
                assert payload == raw("records", kind, "payload")
            with pytest.raises(InvalidSignature):
                reference.verify(kind, message, public("instance"))

    def test_sealed_results(self):
        recipients = verify_recipient_set(raw("recipients", "message"), public("recipient authority"))
        header = peek_result(raw("result", "message")).header
        message = seal(header, b"payload", private("instance"), recipients)
        for reader in ("reader", "second reader"):
            assert reference.open_result(message, public("instance"), private(reader)) == b"payload"

    def test_neither_side_of_the_binding_is_decoration(self):
        encrypted, x = raw("result", "encrypted"), raw("result", "x")
        assert reference.decrypt(encrypted, x, private("reader"))[32:] == raw("result", "payload")
        with pytest.raises((InvalidTag, InvalidUnwrap)):
            reference.decrypt(encrypted, x + b"\0", private("reader"))
