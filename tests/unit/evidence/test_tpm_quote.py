"""TPM quotes: every field, every scheme, one accepted form."""

import struct

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave import cose
from edgeclave.errors import ConfigurationError, EvidenceError
from edgeclave.evidence import tpm
from edgeclave.evidence.anchors import Anchor, key_fingerprint
from edgeclave.evidence.collection import Collection, Item, encode_collection
from edgeclave.evidence.eat import report_data
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.kinds import KINDS, detect
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.reference import Reference
from edgeclave.evidence.tpm_certificates import TYPES
from edgeclave.evidence.tpm_quote import parse_attest
from edgeclave.evidence.verifier import Verifier
from tests.fixtures.tpm_hardware import (
    BOOTED,
    SHA1_BANK,
    SHA256_BANK,
    AttestationKeyAuthority,
    TpmHardware,
    attest,
    bank,
    sized,
)

NOW, DAY = 1_750_000_000, 86_400
EXTRA = bytes(range(32))
P256, P384 = TpmHardware(), TpmHardware(ec.generate_private_key(ec.SECP384R1()))
RSA = TpmHardware(rsa.generate_private_key(65537, 2048))


def verify(data, hardware=P256, anchors=None):
    return tpm.KIND.verify(data, Endorsements(), anchors or [hardware.anchor()], NOW)


def refusal(data, hardware=P256, anchors=None):
    with pytest.raises(EvidenceError) as refused:
        verify(data, hardware, anchors)
    return refused.value.code


def made(message, hardware=P256, *, pcrs=BOOTED, signature=None, key=None):
    """The platform item of any parts, whether anybody would accept it or not."""
    return cose.dcbor(
        {
            "key": key or key_fingerprint(hardware.public_key),
            "attest": message,
            "signature": signature or hardware.sign(message),
            "pcrs": pcrs,
        }
    )


class TestSignature:
    @pytest.mark.parametrize(
        ("hardware", "scheme", "algorithm"),
        [
            (P256, None, "sha256"),
            (P384, None, "sha384"),
            (RSA, "rsassa", "sha256"),
            (RSA, "rsassa", "sha384"),
            (RSA, "rsapss", "sha256"),
        ],
    )
    def test_every_scheme(self, hardware, scheme, algorithm):
        message = attest(EXTRA, BOOTED, algorithm=algorithm)
        data = made(message, hardware, signature=hardware.sign(message, scheme, algorithm))
        found = verify(data, hardware)
        assert found.report_data == EXTRA + bytes(32)
        assert found.platform_instance == key_fingerprint(hardware.public_key)
        assert found.runtime == {"pcr4": BOOTED[4], "pcr7": BOOTED[7], "pcr11": BOOTED[11]}
        assert not found.debug

    @pytest.mark.parametrize(
        ("signature", "code"),
        [
            pytest.param(lambda m: P256.sign(m) + b"\0", "malformed-quote", id="a byte too many"),
            pytest.param(lambda m: P256.sign(m)[:-1], "malformed-quote", id="truncated"),
            pytest.param(lambda m: b"\0", "malformed-quote", id="one byte"),
            pytest.param(lambda m: P256.sign(m, algorithm="sha1"), "malformed-quote", id="SHA-1"),
            pytest.param(RSA.sign, "malformed-quote", id="a scheme the key does not have"),
            pytest.param(lambda m: b"\0\x1a" + P256.sign(m)[2:], "malformed-quote", id="ECDAA"),
            pytest.param(lambda m: b"\0\x05\0\x0b" + sized(b"h" * 32), "malformed-quote", id="an HMAC"),
            pytest.param(lambda m: b"\0\x18\0\x0b" + sized(bytes(32)) * 2, "bad-quote-signature", id="r and s of zero"),
            pytest.param(lambda m: b"\0\x18\0\x0b" + sized(b"") * 2, "bad-quote-signature", id="r and s of no bytes"),
            pytest.param(lambda m: b"\0\x18\0\x0b" + sized(bytes(600)) * 2, "malformed-quote", id="an absurd length"),
            pytest.param(P384.sign, "bad-quote-signature", id="another key"),
        ],
    )
    def test_what_is_no_signature(self, signature, code):
        message = attest(EXTRA, BOOTED)
        assert refusal(made(message, signature=signature(message))) == code

    @pytest.mark.parametrize("salt", [0, 32, 222])
    def test_the_tpm_chooses_the_salt(self, salt):
        message = attest(EXTRA, BOOTED)
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
        signature = struct.pack(">HH", 0x16, 0x0B) + sized(RSA.key.sign(message, pss, hashes.SHA256()))
        verify(made(message, RSA, signature=signature), RSA)

    def test_a_weak_key_is_none(self):
        weak = TpmHardware(rsa.generate_private_key(65537, 1024))
        assert refusal(weak.quote(EXTRA), weak) == "malformed-quote"
        with pytest.raises(ConfigurationError, match="not a key"):
            Policy((weak.anchor(),), {"tpm": Reference({"pcr4": BOOTED[4]})}, frozenset(), ())


class TestAttest:
    def test_every_field(self):
        found = parse_attest(attest(EXTRA, BOOTED))
        assert found.extra_data == EXTRA
        assert found.qualified_signer == b"\x00\x0b" + b"n" * 32
        assert (found.clock, found.reset_count, found.restart_count, found.safe) == (123_456, 5, 2, True)
        assert found.firmware_version == 0x2020031200120003
        assert found.pcrs == (4, 7, 11)

    @pytest.mark.parametrize(
        "message",
        [
            pytest.param(attest(EXTRA, BOOTED, magic=0xFF544348), id="made outside a TPM"),
            pytest.param(attest(EXTRA, BOOTED, kind=0x8017), id="a certified key, no quote"),
            pytest.param(attest(EXTRA, BOOTED, safe=2), id="a flag that is neither"),
            pytest.param(attest(EXTRA, BOOTED)[:-1], id="truncated"),
            pytest.param(attest(EXTRA, BOOTED) + b"\0", id="a byte too many"),
            pytest.param(attest(bytes(65), BOOTED), id="more extra data than a digest and its zeros"),
            pytest.param(attest(EXTRA, BOOTED, selection=struct.pack(">I", 0)), id="no bank"),
            pytest.param(attest(EXTRA, BOOTED, selection=struct.pack(">I", 0xFFFFFFFF)), id="absurdly many banks"),
            pytest.param(
                attest(EXTRA, BOOTED, selection=struct.pack(">I", 1) + bank(SHA256_BANK)), id="no PCR selected"
            ),
            pytest.param(
                attest(EXTRA, BOOTED, selection=struct.pack(">I", 1) + bank(SHA1_BANK, 4, 7, 11)), id="SHA-1 bank"
            ),
            pytest.param(
                attest(EXTRA, BOOTED, selection=struct.pack(">I", 2) + 2 * bank(SHA256_BANK, 4, 7, 11)),
                id="a bank twice",
            ),
            pytest.param(
                attest(EXTRA, BOOTED, selection=struct.pack(">I", 1) + bank(SHA256_BANK, 4, 24, size=4)),
                id="a PCR that no TPM has",
            ),
            pytest.param(
                attest(EXTRA, BOOTED, selection=struct.pack(">I", 1) + bank(SHA256_BANK, 4, size=200)),
                id="an absurd length of a selection",
            ),
            pytest.param(attest(EXTRA, BOOTED, digest=bytes(65)), id="a digest longer than any"),
            pytest.param(b"", id="nothing"),
            pytest.param(attest(EXTRA, BOOTED) + bytes(2000), id="far too long"),
        ],
    )
    def test_what_is_no_quote(self, message):
        """Although the key signed it."""
        assert refusal(made(message)) == "malformed-quote"

    def test_a_bank_without_any_pcr_is_passed_over(self):
        selection = struct.pack(">I", 2) + bank(SHA1_BANK) + bank(SHA256_BANK, *BOOTED)
        assert verify(made(attest(EXTRA, BOOTED, selection=selection))).runtime["pcr4"] == BOOTED[4]

    @settings(max_examples=300)
    @given(data=st.binary(max_size=300))
    def test_any_bytes_are_a_quote_or_refused(self, data):
        for candidate in (data, bytes.fromhex("ff5443478018") + data, attest(EXTRA, BOOTED)[:40] + data):
            try:
                parse_attest(candidate)
            except EvidenceError as error:
                assert error.code == "malformed-quote"  # noqa: PT017


class TestItem:
    def test_one_flipped_bit(self):
        good = P256.quote(EXTRA)

        @settings(max_examples=300, deadline=None)
        @given(position=st.integers(0, len(good) * 8 - 1))
        def flip(position):
            bad = bytearray(good)
            bad[position // 8] ^= 1 << position % 8
            refusal(bytes(bad))

        flip()

    @pytest.mark.parametrize(
        ("pcrs", "code"),
        [
            ({**BOOTED, 4: bytes(32)}, "wrong-pcr-digest"),
            ({**BOOTED, 4: BOOTED[7], 7: BOOTED[4]}, "wrong-pcr-digest"),
            ({4: BOOTED[4], 7: BOOTED[7]}, "malformed-quote"),
            ({**BOOTED, 12: bytes(32)}, "malformed-quote"),
            ({}, "malformed-quote"),
            ({**BOOTED, 4: bytes(20)}, "malformed-quote"),
            ({**BOOTED, 24: bytes(32)}, "malformed-quote"),
            ({**BOOTED, "4": bytes(32)}, "malformed-quote"),
        ],
        ids=["another value", "swapped", "one missing", "one too many", "none", "short", "no such PCR", "a text index"],
    )
    def test_pcr_values(self, pcrs, code):
        assert refusal(made(attest(EXTRA, BOOTED), pcrs=pcrs)) == code

    def test_another_form(self):
        good = P256.quote(EXTRA)
        assert refusal(good + b"\0") == "malformed-quote"
        assert refusal(good[:-1]) == "malformed-quote"
        assert refusal(cose.dcbor({"attest": b"", "signature": b"", "pcrs": {}})) == "malformed-quote"
        assert refusal(b"") == "malformed-quote"

    def test_a_key_that_is_not_pinned(self):
        assert refusal(P384.quote(EXTRA), P256) == "untrusted-anchor"

    def test_the_name_of_a_pinned_key_with_the_quote_of_another(self):
        message = attest(EXTRA, BOOTED)
        forged = made(message, signature=TpmHardware().sign(message), key=key_fingerprint(P256.public_key))
        assert refusal(forged) == "bad-quote-signature"

    def test_detection(self):
        for quote, kind in ((P256.quote(EXTRA), "tpm"), (P256.certified_quote(EXTRA), "tpm-certified")):
            assert detect(quote) == (kind, quote)


class TestCertified:
    AUTHORITY = AttestationKeyAuthority()
    GOOD = AUTHORITY.certify(P256.public_key, begin=NOW - DAY, end=NOW + DAY)

    def verify(self, certificate, *, authority=None, now=NOW):
        known = Endorsements(each for kind in TYPES for each in kind.read(certificate))
        return tpm.CERTIFIED_KIND.verify(
            P256.certified_quote(EXTRA), known, [(authority or self.AUTHORITY).anchor()], now
        )

    def refusal(self, *arguments, **named):
        with pytest.raises(EvidenceError) as refused:
            self.verify(*arguments, **named)
        return refused.value.code

    def test_accepted(self):
        found = self.verify(self.GOOD)
        assert found.platform_instance == key_fingerprint(P256.public_key)
        assert found.anchor == self.AUTHORITY.anchor()

    def test_an_authority_with_an_rsa_key(self):
        authority = AttestationKeyAuthority(rsa.generate_private_key(65537, 2048))
        certificate = authority.certify(P256.public_key, begin=NOW - DAY, end=NOW + DAY)
        assert self.verify(certificate, authority=authority).anchor == authority.anchor()

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            pytest.param({"begin": NOW + 1}, "endorsement-not-yet-valid", id="of the future"),
            pytest.param({"end": NOW - 1}, "endorsement-expired", id="expired"),
            pytest.param({"usage": None}, "no-endorsement", id="for no use"),
            pytest.param(
                {"usage": ExtendedKeyUsageOID.CLIENT_AUTH},
                "no-endorsement",
                id="for another use",
            ),
            pytest.param({"authority": True}, "no-endorsement", id="of an authority"),
        ],
    )
    def test_certificates_that_vouch_for_nothing(self, changes, code):
        arguments = {"begin": NOW - DAY, "end": NOW + DAY, **changes}
        assert self.refusal(self.AUTHORITY.certify(P256.public_key, **arguments)) == code

    def test_another_authority(self):
        assert self.refusal(self.GOOD, authority=AttestationKeyAuthority()) == "untrusted-anchor"

    def test_no_certificate(self):
        assert self.refusal(b"") == "no-endorsement"

    def test_every_flipped_bit(self):
        for position in range(len(self.GOOD) * 8):
            bad = bytearray(self.GOOD)
            bad[position // 8] ^= 1 << position % 8
            self.refusal(bytes(bad))

    def test_unused_bits_of_a_signature_that_happens_to_end_in_zero(self):
        """DER lets the count say one; the signature is the same, and nobody signed the count."""
        certificate = b"\1"
        while certificate[-1] & 1:
            certificate = self.AUTHORITY.certify(P256.public_key, begin=NOW - DAY, end=NOW + DAY)
        signature = x509.load_der_x509_certificate(certificate).signature
        bad = bytearray(certificate)
        bad[-len(signature) - 1] = 1
        assert self.refusal(bytes(bad)) == "no-endorsement"

    def test_a_pinned_attestation_key_certifies_nothing(self):
        """Root lets the pinned key of its TPM sign a "certificate" for a key of its own, and quotes what it likes."""
        invented = TpmHardware()
        issued = AttestationKeyAuthority(P256.key).certify(invented.public_key, begin=NOW - DAY, end=NOW + DAY)
        known = Endorsements(each for kind in TYPES for each in kind.read(issued))
        with pytest.raises(EvidenceError, match="untrusted-anchor"):
            tpm.KIND.verify(invented.quote(EXTRA), known, [P256.anchor()], NOW)
        policy = Policy((P256.anchor(),), {"tpm": Reference({"pcr4": BOOTED[4]})}, frozenset({"boot-attested"}), ())
        with pytest.raises(EvidenceError, match="untrusted-anchor"):
            Verifier(policy, endorsements=known).verify_quote("tpm-certified", invented.certified_quote(EXTRA), now=NOW)


class TestPolicy:
    """What a TPM shows is never called a TEE."""

    def policy(self, hardware=P256, **changes):
        fields = {
            "anchors": (hardware.anchor(device="edge01"),),
            "runtime": {"tpm": Reference({"pcr4": BOOTED[4]})},
            "classes": frozenset({"boot-attested"}),
            "trusted_apps": (),
        }
        return Policy(**{**fields, **changes})

    def evidence(self, platform, extra_data=None, **claims):
        eat = platform.eat(**claims)
        quote = P256.quote(report_data(eat)[:32] if extra_data is None else extra_data)
        return encode_collection(Collection(eat, Item(tpm.MEDIA_TYPE, quote)))

    def result(self, platform, evidence, **changes):
        policy = self.policy(trusted_apps=platform.policy().trusted_apps, freshness="nonce", **changes)
        return Verifier(policy).verify(evidence, nonce=b"nonce-of-16-byte", now=NOW)

    def test_accepted_as_what_it_is(self, platform):
        found = self.result(platform, self.evidence(platform))
        assert found.platform_class == "boot-attested"
        assert found.device == "edge01"

    @pytest.mark.parametrize("claimed", ["sgx", "tdx", "sev-snp", "optee-device", "shared-guest", "emulated"])
    def test_no_policy_can_call_it_a_tee(self, claimed):
        with pytest.raises(ConfigurationError, match="cannot vouch for class"):
            self.policy(anchors=(Anchor("tpm", claimed, P256.public_key),))

    def test_refused_unless_the_class_is_named(self, platform):
        with pytest.raises(EvidenceError, match="class-not-accepted"):
            self.result(platform, self.evidence(platform), classes=frozenset({"sgx", "tdx", "sev-snp"}))

    @pytest.mark.parametrize("media_type", [kind.media_type for kind in KINDS.values() if kind.name != "tpm"])
    def test_under_the_media_type_of_any_other_kind(self, platform, media_type):
        eat = platform.eat()
        quote = P256.quote(report_data(eat)[:32])
        evidence = encode_collection(Collection(eat, Item(media_type, quote)))
        with pytest.raises(EvidenceError, match="untrusted-anchor"):
            self.result(platform, evidence)

    @pytest.mark.parametrize(
        "extra_data",
        [b"", b"\0", bytes(32), b"challenge"],
        ids=["empty, as a prefix of everything", "one byte", "zeros", "a challenge"],
    )
    def test_a_quote_about_less_than_the_whole_digest(self, platform, extra_data):
        with pytest.raises(EvidenceError, match="wrong-report-data"):
            self.result(platform, self.evidence(platform, extra_data))

    @pytest.mark.parametrize("size", [1, 8, 31])
    def test_a_quote_about_the_beginning_of_the_digest(self, platform, size):
        eat = platform.eat()
        quote = P256.quote(report_data(eat)[:size])
        with pytest.raises(EvidenceError, match="wrong-report-data"):
            self.result(platform, encode_collection(Collection(eat, Item(tpm.MEDIA_TYPE, quote))))

    def test_another_boot(self, platform):
        with pytest.raises(EvidenceError, match="wrong-runtime"):
            self.result(platform, self.evidence(platform), runtime={"tpm": Reference({"pcr4": bytes(32)})})

    @pytest.mark.parametrize("named", [{}, {"pcr7": bytes(32)}, {"pcr11": bytes(32)}, {"pcr16": bytes(32)}])
    def test_reference_values_that_name_no_code(self, named):
        with pytest.raises(ConfigurationError, match="must name all of"):
            self.policy(runtime={"tpm": Reference(named)})
