"""One suite for every kind of evidence: good evidence is accepted, and each thing that can be wrong is refused.

A new TEE adds one bench (tests/fixtures/evidence_bench.py) to BENCHES and gets all of it.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave import cose
from edgeclave.cose import generate_key
from edgeclave.errors import EvidenceError
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.collection import MAX_EVIDENCE_BYTES, Collection, Item, encode_collection
from edgeclave.evidence.eat import EAT, report_data
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.kinds import KINDS, detect
from edgeclave.evidence.policy import TrustedApp
from tests.fixtures.amd_benches import AzureBench, CertifiedTpmBench, SevSnpBench, TpmBench, hardware_of
from tests.fixtures.amd_hardware import TURIN_TCB
from tests.fixtures.benches import EmulatorBench, IntelBench
from tests.fixtures.evidence_bench import IDENTITY, NOW, Bench, Instance, verify

BENCHES = {
    "emulator": EmulatorBench,
    "sgx quote v3": lambda: IntelBench("sgx", 3),
    "tdx quote v4": lambda: IntelBench("tdx", 4),
    "tdx quote v5": lambda: IntelBench("tdx", 5),
    "sev-snp report v2, Milan": lambda: SevSnpBench(version=2),
    "sev-snp report v3, Milan, VLEK": lambda: SevSnpBench(hardware_of(signer="VLEK")),
    "sev-snp report v3, Genoa": lambda: SevSnpBench(hardware_of(product="Genoa")),
    "sev-snp report v5, Turin": lambda: SevSnpBench(hardware_of(product="Turin", tcb=TURIN_TCB), version=5),
    "azure confidential vm": AzureBench,
    "tpm": TpmBench,
    "tpm with a certified key": CertifiedTpmBench,
}


@pytest.fixture(scope="module", params=BENCHES)
def bench(request) -> Bench:
    return BENCHES[request.param]()


@pytest.fixture(scope="module")
def other(bench) -> Bench:
    """The same kind under another root."""
    return next(make for name, make in BENCHES.items() if type(make()) is type(bench) and make().kind == bench.kind)()


@pytest.fixture(scope="module")
def instance(bench) -> Instance:
    return Instance(bench)


def refusal(bench, evidence, **arguments):
    with pytest.raises(EvidenceError) as refused:
        verify(bench, evidence, **arguments)
    assert refused.value.what
    return refused.value.code


def test_every_kind_has_a_bench():
    assert {make().kind for make in BENCHES.values()} == set(KINDS)


class TestGood:
    def test_it_is_accepted_and_says_what_it_is(self, bench, instance):
        result = verify(bench, instance.evidence())
        assert result.anchor == bench.policy().anchors[0]
        assert result.platform_class == result.anchor.platform_class
        assert result.identity == IDENTITY
        assert result.signing_key == instance.signing_key.public_key()
        assert result.freshness == "nonce"

    def test_the_same_platform_has_the_same_instance_and_another_has_another(self, bench, other, instance):
        first = verify(bench, instance.evidence()).platform_instance
        assert verify(bench, instance.evidence()).platform_instance == first
        assert verify(other, Instance(other).evidence()).platform_instance != first

    def test_endorsements_may_come_with_the_evidence(self, bench, instance):
        if bench.endorsements():
            verify(bench, instance.evidence(carried=True), known=False)
        else:
            assert refusal(bench, instance.evidence(carried=True)) == "malformed-evidence"

    def test_its_raw_quote_is_recognised(self, bench):
        quote = bench.quote(bytes(64))
        assert detect(quote) == (bench.kind, quote)


class TestPolicy:
    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            pytest.param({"anchors": ()}, "untrusted-anchor", id="no anchor"),
            pytest.param({"classes": frozenset()}, "class-not-accepted", id="no class"),
            pytest.param({"trusted_apps": ()}, "unknown-trusted-app", id="no trusted application"),
            pytest.param(
                {"trusted_apps": (TrustedApp(IDENTITY.signer_id, 7, minimum_security_version=4),)},
                "security-version-too-low",
                id="a newer security version",
            ),
        ],
    )
    def test_what_is_not_named_is_refused(self, bench, instance, changes, code):
        assert refusal(bench, instance.evidence(), policy=bench.policy(**changes)) == code

    def test_a_genuine_quote_of_a_foreign_runtime_that_claims_our_unique_id(self, bench, instance):
        eat = instance.eat()
        quote = bench.quote(report_data(eat), foreign_runtime=True)
        assert refusal(bench, instance.evidence(eat=eat, quote=quote)) == "wrong-runtime"

    def test_not_one_claim_of_a_foreign_runtime_is_read(self, bench, instance):
        eat = cose.sign(EAT, cose.dcbor("no claims"), instance.signing_key)
        quote = bench.quote(report_data(eat), foreign_runtime=True)
        assert refusal(bench, instance.evidence(eat=eat, quote=quote)) == "wrong-runtime"

    def test_debug_mode(self, bench, instance):
        eat = instance.eat()
        quote = bench.quote(report_data(eat), debug=True)
        assert refusal(bench, instance.evidence(eat=eat, quote=quote)) == getattr(bench, "debug_code", "debug-platform")


class TestForeign:
    def test_a_foreign_root(self, bench, other):
        assert refusal(bench, Instance(other).evidence()) in (
            "untrusted-anchor",
            "bad-quote-signature",
            "no-endorsement",  # where each platform has its own
        )

    def test_a_foreign_root_that_brings_its_own_endorsements(self, bench, other):
        if bench.endorsements():
            evidence = Instance(other).evidence(carried=True)
            assert refusal(bench, evidence, known=False) == "untrusted-anchor"

    def test_a_swapped_chain(self, bench, instance):
        eat = instance.eat()
        evidence = instance.evidence(eat=eat, quote=bench.swapped_chain(report_data(eat)))
        assert refusal(bench, evidence) == "bad-quote-signature"

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_media_type_of_another_kind(self, bench, instance, kind):
        """Under a policy that would accept the other kind too."""
        if kind != bench.kind:
            eat = instance.eat()
            item = Item(KINDS[kind].media_type, bench.quote(report_data(eat)))
            evidence = encode_collection(Collection(eat, item))
            assert refusal(bench, evidence) == "untrusted-anchor"

    def test_the_vendors_root_does_not_accept_stand_in_hardware(self, bench, instance):
        for name, fingerprint in KINDS[bench.kind].roots.items():
            (platform_class, *_) = sorted(KINDS[bench.kind].classes)
            anchor = Anchor(bench.kind, platform_class, fingerprint, name=name)
            policy = bench.policy(anchors=(anchor,), classes=frozenset({platform_class}))
            assert refusal(bench, instance.evidence(), policy=policy) == "untrusted-anchor"


class TestBinding:
    def test_another_nonce(self, bench, instance):
        assert refusal(bench, instance.evidence(), nonce=b"another-nonce-16") == "wrong-nonce"

    def test_the_quote_of_another_eat(self, bench, instance):
        quote = bench.quote(report_data(instance.eat(storage_level="rollback-protected")))
        assert refusal(bench, instance.evidence(eat=instance.eat(), quote=quote)) == "wrong-report-data"

    @pytest.mark.parametrize("position", [0, 31, 32, 63])
    def test_every_byte_of_the_report_data_counts(self, bench, instance, position):
        eat = instance.eat()
        wrong = bytearray(report_data(eat))
        wrong[position] ^= 1
        evidence = instance.evidence(eat=eat, quote=bench.quote(bytes(wrong)))
        assert refusal(bench, evidence) == "wrong-report-data"

    def test_claims_by_another_key_than_cnf(self, bench, instance):
        eat = cose.sign(EAT, cose.parse(instance.eat()).payload, generate_key())
        evidence = instance.evidence(eat=eat, quote=bench.quote(report_data(eat)))
        assert refusal(bench, evidence) == "bad-evidence-signature"


class TestTime:
    def test_only_while_the_endorsements_are_valid(self, bench, instance):
        validity = bench.validity()
        if validity is None:
            verify(bench, instance.evidence(), now=0)
            return
        first, last = validity
        evidence = instance.evidence()
        verify(bench, evidence, now=first)
        verify(bench, evidence, now=last)
        for early in (first - 1, 0):
            assert refusal(bench, evidence, now=early) == "endorsement-not-yet-valid"
        for late in (last + 1, 1 << 33):
            assert refusal(bench, evidence, now=late) == "endorsement-expired"

    def test_without_endorsements(self, bench, instance):
        if bench.endorsements():
            assert refusal(bench, instance.evidence(), known=False) == "no-endorsement"


class TestAltered:
    @given(data=st.data())
    @settings(max_examples=150, deadline=None)
    def test_one_bit_of_any_field(self, bench, instance, data):
        eat = instance.eat()
        quote = bytearray(bench.quote(report_data(eat)))
        field = data.draw(st.sampled_from(sorted(bench.fields)))
        quote[data.draw(st.sampled_from(bench.fields[field]))] ^= 1 << data.draw(st.integers(0, 7))
        refusal(bench, instance.evidence(eat=eat, quote=bytes(quote)))

    def test_every_byte_of_the_fields(self, bench):
        """At the platform's level, where it costs a millisecond each."""
        quote, anchors = bench.quote(bytes(64)), bench.policy().anchors
        endorsements = Endorsements(bench.endorsements())
        KINDS[bench.kind].verify(quote, endorsements, anchors, NOW)
        for field in bench.fields.values():
            for position in field:
                altered = bytearray(quote)
                altered[position] ^= 1 << position % 8
                with pytest.raises(EvidenceError):
                    KINDS[bench.kind].verify(bytes(altered), endorsements, anchors, NOW)

    @pytest.mark.parametrize("part", ["quote", "evidence"])
    def test_every_truncation(self, bench, instance, part):
        eat = instance.eat()
        whole = bench.quote(report_data(eat)) if part == "quote" else instance.evidence()
        for length in range(0, len(whole), 41):
            cut = whole[:length]
            evidence = instance.evidence(eat=eat, quote=cut) if part == "quote" and cut else cut
            assert refusal(bench, evidence) in ("malformed-quote", "malformed-evidence", "wrong-message-kind")

    @pytest.mark.parametrize("more", [b"\0", b"\xf6", bytes(100), b"-----BEGIN"], ids=["zero", "null", "zeros", "text"])
    def test_trailing_bytes(self, bench, instance, more):
        eat = instance.eat()
        quote = bench.quote(report_data(eat)) + more
        assert refusal(bench, instance.evidence(eat=eat, quote=quote)) == "malformed-quote"
        assert refusal(bench, instance.evidence() + more) == "malformed-evidence"

    def test_too_much_is_refused_unparsed(self, bench, instance):
        assert refusal(bench, bytes(MAX_EVIDENCE_BYTES + 1)) == "malformed-evidence"

    @given(junk=st.binary(max_size=3000), keep=st.integers(0, 200))
    @settings(max_examples=100, deadline=None)
    def test_any_bytes_behind_a_good_beginning_give_one_kind_of_error(self, bench, instance, junk, keep):
        eat = instance.eat()
        quote = bench.quote(report_data(eat))[:keep] + junk
        refusal(bench, instance.evidence(eat=eat, quote=quote or b"\0"))
