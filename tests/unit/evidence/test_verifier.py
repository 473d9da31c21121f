"""What the verifier accepts, and the one reason for which it refuses anything else (PROTOCOL section 6)."""

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave import cose
from edgeclave.errors import ConfigurationError, EvidenceError
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.collection import Collection, Item, encode_collection, evidence_digest
from edgeclave.evidence.eat import EAT, Epoch, make_eat, report_data
from edgeclave.evidence.emulator import QUOTE, make_quote, quote_item
from edgeclave.evidence.policy import Policy, TrustedApp
from edgeclave.evidence.reference import Reference
from edgeclave.evidence.runtime import runtime_digest
from edgeclave.evidence.verifier import Verifier
from edgeclave.ta.identity import Identity

NONCE, NOW = b"nonce-of-16-byte", 1_700_000_000
BEACON = b"beacon-of-16-byt"


def verify(policy, evidence, *, nonce=NONCE, now=NOW, published=None):
    return Verifier(policy, published=published).verify(evidence, nonce=nonce, now=now)


def refusal(policy, evidence, **arguments):
    with pytest.raises(EvidenceError) as refused:
        verify(policy, evidence, **arguments)
    return refused.value


def test_good_evidence_gives_everything_a_relying_party_needs(platform):
    evidence = platform.evidence()
    result = verify(platform.policy(), evidence)
    assert result.platform_class == "emulated"
    assert result.platform_instance == platform.platform_instance
    assert result.device == "edge01"
    assert result.identity == Identity(b"u" * 32, b"s" * 32, 7, 3, False)
    assert result.signing_key == platform.signing_key.public_key()
    assert result.channel_key == platform.channel_key.public_key()
    assert result.instance_id == cose.thumbprint(platform.signing_key.public_key())
    assert result.epoch == Epoch(2, "none", b"p" * 32)
    assert result.storage_level == "consistent"
    assert result.recipients == {"anomalies": (1, b"r" * 32), "summary": (4, b"r" * 32)}
    assert result.freshness == "nonce"
    assert result.evidence_digest == evidence_digest(evidence)
    assert result.host_time == 1_700_000_000_123


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"anchors": ()}, "untrusted-anchor", id="no anchor at all"),
        pytest.param({"classes": frozenset()}, "class-not-accepted", id="emulated is not named"),
        pytest.param({"classes": frozenset({"sgx"})}, "class-not-accepted", id="only real TEEs are named"),
        pytest.param(
            {"runtime": {"emulator": Reference({"digest": bytes(32)})}}, "wrong-runtime", id="another release"
        ),
        pytest.param({"trusted_apps": ()}, "unknown-trusted-app", id="no trusted application is named"),
        pytest.param({"trusted_apps": (TrustedApp(b"s" * 32, 8),)}, "unknown-trusted-app", id="another product"),
        pytest.param({"trusted_apps": (TrustedApp(b"t" * 32, 7),)}, "unknown-trusted-app", id="another signer"),
        pytest.param({"trusted_apps": (TrustedApp(unique_id=b"v" * 32),)}, "unknown-trusted-app", id="another build"),
        pytest.param(
            {"trusted_apps": (TrustedApp(b"s" * 32, 7, minimum_security_version=4),)},
            "security-version-too-low",
            id="a newer version is asked for",
        ),
        pytest.param({"minimum_recipients": {"summary": 5}}, "recipients-too-old", id="newer readers are asked for"),
    ],
)
def test_a_policy_that_does_not_name_it_refuses_it(platform, changes, code):
    error = refusal(platform.policy(**changes), platform.evidence())
    assert error.code == code
    assert error.advice


def test_either_rule_of_two_is_enough(platform):
    rules = (TrustedApp(b"s" * 32, 7, minimum_security_version=9), TrustedApp(unique_id=b"u" * 32))
    assert verify(platform.policy(trusted_apps=rules), platform.evidence()).identity.security_version == 3


class TestRuntime:
    def test_a_foreign_runtime_that_claims_our_unique_id_is_refused_before_its_claims(self, platform):
        assert refusal(platform.policy(), platform.evidence(runtime=b"x" * 32)).code == "wrong-runtime"

    def test_not_one_claim_of_a_foreign_runtime_is_read(self, platform):
        """Claims that cannot even be parsed make no difference."""
        eat = cose.sign(EAT, cose.dcbor("no claims"), platform.signing_key)
        quote = make_quote(platform.attestation_key, report_data(eat), b"x" * 32, False)
        assert refusal(platform.policy(), encode_collection(Collection(eat, quote_item(quote)))).code == "wrong-runtime"


class TestAnchor:
    def test_a_foreign_platform_is_refused(self, platform, other_platform):
        assert refusal(platform.policy(), other_platform.evidence()).code == "untrusted-anchor"

    def test_a_foreign_key_under_the_pinned_name_is_refused(self, platform, other_platform):
        eat = platform.eat()
        fields = {"report_data": report_data(eat), "runtime_digest": runtime_digest(), "debug": False}
        kid = {cose.KID: platform.platform_instance}
        forged = cose.sign(QUOTE, cose.dcbor(fields), other_platform.attestation_key, protected=kid)
        evidence = encode_collection(Collection(eat, quote_item(forged)))
        assert refusal(platform.policy(), evidence).code == "bad-quote-signature"

    def test_the_class_is_the_anchors_whatever_the_media_type_says(self, platform):
        eat = platform.eat()
        item = Item("application/vnd.intel.sgx.quote", platform.quote(eat))
        assert refusal(platform.policy(), encode_collection(Collection(eat, item))).code == "untrusted-anchor"

    def test_the_right_one_of_many_anchors_is_found(self, platform, other_platform):
        anchors = (*other_platform.policy().anchors, *platform.policy().anchors)
        assert verify(platform.policy(anchors=anchors), platform.evidence()).anchor == anchors[1]

    def test_the_emulator_has_no_endorsements(self, platform):
        eat = platform.eat()
        collection = Collection(eat, quote_item(platform.quote(eat)), Item("application/cbor", b""))
        assert refusal(platform.policy(), encode_collection(collection)).code == "malformed-evidence"

    def test_messages_from_another_device_are_refused(self, platform):
        result = verify(platform.policy(), platform.evidence())
        result.require_device("edge01")
        with pytest.raises(EvidenceError, match="wrong-device"):
            result.require_device("edge02")


class TestBinding:
    def test_the_quote_of_another_eat_is_refused(self, platform):
        other = platform.quote(platform.eat(storage_level="rollback-protected"))
        evidence = encode_collection(Collection(platform.eat(), quote_item(other)))
        assert refusal(platform.policy(), evidence).code == "wrong-report-data"

    def test_the_second_half_of_report_data_counts_too(self, platform):
        eat = platform.eat()
        quote = make_quote(platform.attestation_key, report_data(eat)[:32] + b"\1" * 32, runtime_digest(), False)
        evidence = encode_collection(Collection(eat, quote_item(quote)))
        assert refusal(platform.policy(), evidence).code == "wrong-report-data"

    def test_claims_signed_by_another_key_than_cnf_are_refused(self, platform, other_platform):
        eat = make_eat(platform.claims(), other_platform.signing_key)
        evidence = encode_collection(Collection(eat, quote_item(platform.quote(eat))))
        assert refusal(platform.policy(), evidence).code == "bad-evidence-signature"


class TestFreshness:
    @pytest.mark.parametrize(
        ("wanted", "carried", "asked", "published", "code"),
        [
            pytest.param("nonce", NONCE, NONCE, {}, None, id="our nonce"),
            pytest.param("nonce", NONCE, b"another-nonce-16", {}, "wrong-nonce", id="another nonce"),
            pytest.param("nonce", None, NONCE, {}, "wrong-nonce", id="no nonce although asked with one"),
            pytest.param("unknown", NONCE, b"another-nonce-16", {}, "wrong-nonce", id="any age, but another nonce"),
            pytest.param("nonce", NONCE, None, {}, "freshness-unknown", id="someone else's nonce"),
            pytest.param("nonce", BEACON, None, {BEACON: NOW - 5}, "not-fresh-enough", id="a beacon is not enough"),
            pytest.param("nonce", NONCE, NONCE, {NONCE: NOW - 61}, "evidence-too-old", id="a nonce of long ago"),
            pytest.param("beacon", BEACON, None, {BEACON: NOW - 60}, None, id="our beacon"),
            pytest.param("beacon", NONCE, NONCE, {}, None, id="a nonce is more than a beacon"),
            pytest.param("beacon", BEACON, None, {BEACON: NOW - 61}, "evidence-too-old", id="an old beacon"),
            pytest.param("beacon", BEACON, None, {BEACON: NOW + 1}, "evidence-too-old", id="a beacon of the future"),
            pytest.param("beacon", BEACON, None, {}, "freshness-unknown", id="a beacon nobody published"),
            pytest.param("beacon", None, None, {}, "freshness-unknown", id="nothing"),
            pytest.param("unknown", None, None, {}, None, id="nothing, and the policy names that"),
            pytest.param("unknown", BEACON, None, {BEACON: NOW - 61}, "evidence-too-old", id="known to be too old"),
        ],
    )
    def test_freshness(self, platform, wanted, carried, asked, published, code):
        policy = platform.policy(freshness=wanted, maximum_age_seconds=60)
        evidence = platform.evidence(nonce=carried)
        if code:
            assert refusal(policy, evidence, nonce=asked, published=published).code == code
        else:
            verify(policy, evidence, nonce=asked, published=published)

    def test_the_result_says_what_was_shown_not_what_was_asked_for(self, platform):
        policy = platform.policy(freshness="unknown")
        assert verify(policy, platform.evidence()).freshness == "nonce"
        assert verify(policy, platform.evidence(nonce=None), nonce=None).freshness == "unknown"

    def test_host_time_is_never_used(self, platform):
        assert verify(platform.policy(), platform.evidence(host_time=0)).host_time == 0
        assert verify(platform.policy(), platform.evidence(host_time=None)).host_time is None


class TestDebug:
    DEBUG = Identity(b"u" * 32, b"s" * 32, 7, 3, True)

    def test_a_platform_in_debug_mode_is_refused(self, platform):
        evidence = platform.evidence(platform_debug=True, identity=self.DEBUG)
        assert refusal(platform.policy(), evidence).code == "debug-platform"

    def test_a_trusted_application_that_can_be_debugged_is_refused(self, platform):
        assert refusal(platform.policy(), platform.evidence(identity=self.DEBUG)).code == "debug-trusted-app"

    def test_claims_that_deny_the_platforms_debug_mode_are_refused(self, platform):
        assert refusal(platform.policy(debug=True), platform.evidence(platform_debug=True)).code == "debug-hidden"

    def test_an_emulated_counter_counts_in_its_own_class_only(self, platform):
        evidence = platform.evidence(epoch=Epoch(2, "emulated", None), storage_level="rollback-protected")
        assert verify(platform.policy(), evidence).epoch.source == "emulated"
        policy = platform.policy(classes=frozenset({"sgx"}))
        # As if the anchor that verified were one of hardware: no policy file can say so of an emulator's.
        object.__setattr__(policy.anchors[0], "platform_class", "sgx")
        assert refusal(policy, evidence).code == "emulated-counter"

    def test_a_policy_may_accept_debug(self, platform):
        evidence = platform.evidence(platform_debug=True, identity=self.DEBUG)
        assert verify(platform.policy(debug=True), evidence).identity.debug


class TestPolicyValues:
    def test_one_key_cannot_stand_in_two_anchors(self, platform):
        key = platform.attestation_key.public_key()
        anchors = (Anchor("emulator", "emulated", key, "edge01"), Anchor("emulator", "emulated", key, "edge02"))
        with pytest.raises(ConfigurationError, match="bad-policy"):
            platform.policy(anchors=anchors)

    def test_an_emulator_cannot_vouch_for_a_real_tee(self, platform):
        key = platform.attestation_key.public_key()
        with pytest.raises(ConfigurationError, match="cannot vouch for class sgx"):
            platform.policy(anchors=(Anchor("emulator", "sgx", key),))

    def test_an_anchor_needs_runtime_reference_values(self, platform):
        with pytest.raises(ConfigurationError, match="no runtime reference value"):
            platform.policy(runtime={})

    def test_an_empty_policy_refuses_everything(self, platform):
        nothing = Policy(anchors=(), runtime={}, classes=frozenset(), trusted_apps=())
        assert refusal(nothing, platform.evidence()).code == "untrusted-anchor"


class TestAltered:
    def test_every_flipped_byte_is_refused(self, platform):
        evidence, policy = platform.evidence(), platform.policy()
        for position in range(len(evidence)):
            altered = bytearray(evidence)
            altered[position] ^= 0x01
            refusal(policy, bytes(altered))

    def test_every_truncation_is_refused(self, platform):
        evidence, policy = platform.evidence(), platform.policy()
        for length in range(0, len(evidence), 7):
            assert refusal(policy, evidence[:length]).code == "malformed-evidence"

    @pytest.mark.parametrize("more", [b"\0", b"\xf6", bytes(100)], ids=["a zero", "a null", "many zeros"])
    def test_trailing_bytes_are_refused(self, platform, more):
        assert refusal(platform.policy(), platform.evidence() + more).code == "malformed-evidence"

    def test_too_much_is_refused_unparsed(self, platform):
        assert refusal(platform.policy(), bytes(65 << 10)).code == "malformed-evidence"

    @given(data=st.binary(max_size=200))
    @settings(max_examples=200, deadline=None)
    def test_any_bytes_give_one_kind_of_error(self, platform, data):
        refusal(platform.policy(), data)

    @given(
        value=st.recursive(
            st.none() | st.integers() | st.binary(max_size=8) | st.text(max_size=8) | st.floats(),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
            max_leaves=8,
        ),
        name=st.sampled_from(["ta", "platform", "endorsements", "more"]),
    )
    @settings(max_examples=200, deadline=None)
    def test_any_cbor_in_place_of_an_item_gives_one_kind_of_error(self, platform, value, name):
        items = cbor2.loads(platform.evidence())
        refusal(platform.policy(), cose.dcbor({**items, name: value}))

    @pytest.mark.parametrize(
        "nested",
        [b"\x81" * 300 + b"\x00", b"\xa1\x62ta" * 200 + b"\x00", b"\x9f" * 300, b"\xd8\x1c" * 300 + b"\x00"],
        ids=["arrays", "maps", "indefinite arrays", "shared references"],
    )
    def test_deep_nesting_is_refused(self, platform, nested):
        refusal(platform.policy(), nested)
