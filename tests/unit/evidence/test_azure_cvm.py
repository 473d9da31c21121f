"""Azure confidential VMs under a test root: report, runtime data and quote, each bound to the one before."""

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave import cose
from edgeclave.errors import ConfigurationError, EvidenceError
from edgeclave.evidence.amd_certificates import ROOTS
from edgeclave.evidence.anchors import Anchor, key_fingerprint
from edgeclave.evidence.azure_cvm import KIND, MEDIA_TYPE, Quote, decode_quote, encode_quote
from edgeclave.evidence.azure_cvm_files import read_json
from edgeclave.evidence.collection import Collection, Item, encode_collection
from edgeclave.evidence.eat import report_data
from edgeclave.evidence.endorsements import MEDIA_TYPE as ENDORSEMENTS_MEDIA_TYPE
from edgeclave.evidence.endorsements import encode_carried
from edgeclave.evidence.hcl_report import parse_hcl_report
from edgeclave.evidence.kinds import detect
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.reference import Reference
from edgeclave.evidence.verifier import Verifier
from tests.fixtures.amd_hardware import DEBUG, NO_MIGRATION_NO_DEBUG, NOW, AmdHardware
from tests.fixtures.azure_hardware import HCL_BYTES, AzureHardware, jwk, vtpm
from tests.fixtures.tpm_hardware import BOOTED, TpmHardware

AZURE = AzureHardware()
EXTRA = bytes(range(32))


def verify(data, hardware=AZURE, now=NOW):
    return KIND.verify(data, hardware.amd.endorsements(), [hardware.anchor()], now)


def refusal(data, hardware=AZURE, now=NOW):
    with pytest.raises(EvidenceError) as refused:
        verify(data, hardware, now)
    return refused.value.code


def test_accepted():
    data = AZURE.quote(EXTRA)
    found = verify(data)
    assert detect(data) == ("azure-cvm", data)
    assert found.report_data == EXTRA + bytes(32)
    assert found.platform_instance == key_fingerprint(AZURE.tpm.public_key)
    assert found.runtime["measurement"] == b"m" * 48
    assert found.runtime["pcr4"] == BOOTED[4]
    assert set(found.runtime) <= set(KIND.registers)


def test_debug_is_that_of_the_guest():
    assert verify(AZURE.quote(EXTRA, report_policy=NO_MIGRATION_NO_DEBUG | DEBUG)).debug


def test_one_flipped_bit():
    good = AZURE.quote(EXTRA)
    endorsements, anchors = AZURE.amd.endorsements(), [AZURE.anchor()]

    @settings(max_examples=400, deadline=None)
    @given(position=st.integers(0, len(good) * 8 - 1))
    def flip(position):
        bad = bytearray(good)
        bad[position // 8] ^= 1 << position % 8
        with pytest.raises(EvidenceError):
            KIND.verify(bytes(bad), endorsements, anchors, NOW)

    flip()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"signature": b"HCLB"}, id="another signature"),
        pytest.param({"version": 0}, id="version 0"),
        pytest.param({"version": 3}, id="a version nobody knows"),
        pytest.param({"size": 0}, id="no size"),
        pytest.param({"size": 0xFFFFFFFF}, id="an absurd size"),
        pytest.param({"request_type": 1}, id="another request"),
        pytest.param({"status": 1}, id="a status that is none"),
        pytest.param({"reserved": b"\1" * 12}, id="reserved bytes"),
        pytest.param({"request_size": 0xFFFFFFFF}, id="an absurd size of the request"),
        pytest.param({"request_version": 2}, id="another version of the request"),
        pytest.param({"report_type": 3}, id="another kind of report"),
        pytest.param({"hash_type": 2}, id="another hash algorithm"),
        pytest.param({"data_size": 0xFFFFFFFF}, id="an absurd size of the data"),
        pytest.param({"data_size": 0}, id="no data"),
        pytest.param({"padding": b"\1"}, id="something after the data"),
        pytest.param({"padding": bytes(9000)}, id="far too long"),
        pytest.param({"report_vmpl": 2}, id="a report by the guest, not by the paravisor"),
    ],
)
def test_what_is_no_hcl_report(changes):
    hcl_report = AZURE.hcl_report(**changes)
    data = cose.dcbor(
        {"hcl_report": hcl_report, "quote": {**decoded_quote(), "key": key_fingerprint(AZURE.tpm.public_key)}}
    )
    assert refusal(data) == "malformed-quote"


def test_a_machine_on_tdx_is_told_as_what_it_is():
    hcl_report = AZURE.hcl_report(report_type=4)
    data = cose.dcbor(
        {"hcl_report": hcl_report, "quote": {**decoded_quote(), "key": key_fingerprint(AZURE.tpm.public_key)}}
    )
    assert refusal(data) == "unknown-platform"


def decoded_quote():
    quote = AZURE.tpm.quoted(EXTRA)
    return {"attest": quote.attest, "signature": quote.signature, "pcrs": quote.pcrs}


@pytest.mark.parametrize("size", [0, 1, 31, 32, 1215, 1235])
def test_truncated(size):
    with pytest.raises(EvidenceError, match="malformed-quote"):
        parse_hcl_report(AZURE.hcl_report()[:size])


def test_without_padding_too():
    assert len(AZURE.hcl_report()) == HCL_BYTES
    verify(AZURE.quote(EXTRA, padding=b""))
    verify(AZURE.quote(EXTRA, version=1))


class TestRuntimeData:
    def quote(self, runtime_data, **changes):
        return encode_quote(Quote(AZURE.hcl_report(runtime_data, **changes), AZURE.tpm.quoted(EXTRA)))

    def test_runtime_data_that_the_report_is_not_about(self):
        """Root in the guest names a key of its own."""
        own = TpmHardware(rsa.generate_private_key(65537, 2048))
        forged = AzureHardware(tpm=own).runtime_data()
        report = parse_hcl_report(AZURE.hcl_report()).report
        data = encode_quote(Quote(AZURE.hcl_report(forged, report=report), own.quoted(EXTRA)))
        assert refusal(data) == "wrong-runtime-data"

    def test_the_second_half_of_the_report_data_counts_too(self):
        runtime_data = AZURE.runtime_data()
        report = AZURE.amd.report(cose.sha256(runtime_data) + b"\1" * 32)
        assert refusal(self.quote(runtime_data, report=report)) == "wrong-runtime-data"

    @pytest.mark.parametrize(
        "runtime_data",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"{", id="not JSON"),
            pytest.param(b"[" * 1000, id="nested"),
            pytest.param(b"\xff", id="not text"),
            pytest.param(b"[]", id="a list"),
            pytest.param(b"{}", id="no keys"),
            pytest.param(json.dumps({"keys": []}).encode(), id="no key"),
            pytest.param(json.dumps({"keys": [jwk(vtpm().public_key)] * 2}).encode(), id="two of the name"),
            pytest.param(json.dumps({"keys": [jwk(vtpm().public_key)] * 9}).encode(), id="too many"),
            pytest.param(json.dumps({"keys": [jwk(vtpm().public_key, "HCLEkPub")]}).encode(), id="another key"),
            pytest.param(json.dumps({"keys": [{**jwk(vtpm().public_key), "kty": "EC"}]}).encode(), id="no RSA key"),
            pytest.param(json.dumps({"keys": [{**jwk(vtpm().public_key), "n": 5}]}).encode(), id="a number as number"),
            pytest.param(json.dumps({"keys": [{**jwk(vtpm().public_key), "n": "*"}]}).encode(), id="not base64url"),
            pytest.param(json.dumps({"keys": [{**jwk(vtpm().public_key), "n": "A" * 2000}]}).encode(), id="too long"),
            pytest.param(json.dumps({"keys": [{**jwk(vtpm().public_key), "e": "AA"}]}).encode(), id="exponent 0"),
            pytest.param(
                json.dumps({"keys": [jwk(vtpm().public_key)]}).encode()[:-1] + b', "keys": []}', id="a name twice"
            ),
        ],
    )
    def test_runtime_data_that_name_no_key(self, runtime_data):
        """Although the report is about them."""
        assert refusal(self.quote(runtime_data)) == "malformed-quote"


class TestQuote:
    def test_a_quote_by_another_vtpm(self):
        other = AzureHardware(tpm=vtpm("other"))
        mixed = encode_quote(Quote(AZURE.hcl_report(), other.tpm.quoted(EXTRA)))
        assert refusal(mixed) == "malformed-quote"

    def test_a_quote_by_another_vtpm_in_its_name(self):
        named = replace_key(vtpm("other").quoted(EXTRA), key_fingerprint(AZURE.tpm.public_key))
        assert refusal(encode_quote(Quote(AZURE.hcl_report(), named))) == "bad-quote-signature"

    def test_other_pcr_values(self):
        quote = AZURE.tpm.quoted(EXTRA)
        changed = type(quote)(quote.key, quote.attest, quote.signature, {**quote.pcrs, 4: bytes(32)})
        assert refusal(encode_quote(Quote(AZURE.hcl_report(), changed))) == "wrong-pcr-digest"

    @pytest.mark.parametrize("data", [b"", b"HCLA", b"{", b"{}", b'{"version": 3}', cose.dcbor({}), cose.dcbor([])])
    def test_what_is_none(self, data):
        assert refusal(data) == "malformed-quote"
        assert detect(data) is None

    def test_a_byte_too_many(self):
        assert refusal(AZURE.quote(EXTRA) + b"\0") == "malformed-quote"


def replace_key(quote, key):
    return type(quote)(key, quote.attest, quote.signature, quote.pcrs)


class TestFile:
    """The JSON of attestation agents; `test_real_amd_vectors` has a real one."""

    def file(self, **changes):
        quote = AZURE.tpm.quoted(EXTRA)
        pcrs = [quote.pcrs.get(index, b"\xff" * 32) for index in range(24)]
        file = {
            "report": list(AZURE.hcl_report()),
            "quote": {
                "message": list(quote.attest),
                "signature": list(quote.signature[6:]),
                "pcrs": [list(pcr) for pcr in pcrs],
            },
            "vcek": list(AZURE.amd.certificate),
        }
        return json.dumps({**file, **changes}).encode()

    def test_lists_of_numbers(self):
        assert verify(self.file()).report_data == EXTRA + bytes(32)
        assert sorted(read_json(self.file())[1].pcrs) == sorted(BOOTED)

    @pytest.mark.parametrize(
        "changes",
        [
            {"version": 3},
            {"version": "1"},
            {"version": 1},
            {"report": [256]},
            {"report": None},
            {"quote": {}},
            {"quote": []},
            {"vcek": 5},
            {"padding": "x" * (130 << 10)},
        ],
        ids=[
            "version 3",
            "a text",
            "fields of version 0",
            "no byte",
            "null",
            "empty",
            "list",
            "number",
            "far too long",
        ],
    )
    def test_what_is_none(self, changes):
        assert refusal(self.file(**changes)) == "malformed-quote"


class TestPolicy:
    RULE = Reference({"measurement": b"m" * 48, "vmpl": 0, "pcr4": BOOTED[4]})

    def result(self, platform, evidence, hardware=AZURE, **changes):
        fields = {
            "anchors": (hardware.anchor(),),
            "runtime": {"azure-cvm": self.RULE},
            "classes": frozenset({"emulated"}),
            "trusted_apps": platform.policy().trusted_apps,
            "freshness": "nonce",
        }
        verifier = Verifier(Policy(**{**fields, **changes}), endorsements=hardware.amd.endorsements())
        return verifier.verify(evidence, nonce=b"nonce-of-16-byte", now=NOW)

    def evidence(self, platform, hardware=AZURE, endorsements=None, **changes):
        eat = platform.eat()
        quote = hardware.quote(report_data(eat)[:32], **changes)
        return encode_collection(Collection(eat, Item(MEDIA_TYPE, quote), endorsements))

    def test_accepted_with_endorsements_that_came_along(self, platform):
        carried = Item(ENDORSEMENTS_MEDIA_TYPE, encode_carried(AZURE.amd.endorsement_list()))
        found = self.result(platform, self.evidence(platform, endorsements=carried))
        assert found.test
        assert found.platform_class == "emulated"
        assert found.platform_instance == key_fingerprint(AZURE.tpm.public_key)

    def test_the_class_is_the_anchors(self):
        roots = [Anchor("azure-cvm", name, ROOTS["amd-milan-root"], name="amd-milan-root") for name in KIND.classes]
        assert sorted(root.platform_class for root in roots) == ["sev-snp", "shared-guest"]
        for root in roots:
            Policy((root,), {"azure-cvm": self.RULE}, frozenset({root.platform_class}), ())
        with pytest.raises(ConfigurationError, match="cannot vouch"):
            Policy((replace(roots[0], platform_class="tdx"),), {"azure-cvm": self.RULE}, frozenset(), ())

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"report_measurement": b"x" * 48}, "wrong-runtime"),
            ({"report_policy": NO_MIGRATION_NO_DEBUG | DEBUG}, "debug-platform"),
        ],
        ids=["another paravisor", "debug"],
    )
    def test_another_guest(self, platform, changes, code):
        with pytest.raises(EvidenceError, match=code):
            self.result(platform, self.evidence(platform, **changes))

    def test_another_boot(self, platform):
        eat = platform.eat()
        quote = AZURE.quote(report_data(eat)[:32], {**BOOTED, 4: bytes(32)})
        with pytest.raises(EvidenceError, match="pcr4"):
            self.result(platform, encode_collection(Collection(eat, Item(MEDIA_TYPE, quote))))

    def test_a_quote_that_leaves_out_what_booted(self, platform):
        eat = platform.eat()
        quote = AZURE.quote(report_data(eat)[:32], {7: BOOTED[7]})
        with pytest.raises(EvidenceError, match="pcr4 is not measured"):
            self.result(platform, encode_collection(Collection(eat, Item(MEDIA_TYPE, quote))))

    def test_the_quote_of_another_eat(self, platform):
        eat = platform.eat(storage_level="rollback-protected")
        quote = AZURE.quote(report_data(eat)[:32])
        evidence = encode_collection(Collection(platform.eat(), Item(MEDIA_TYPE, quote)))
        with pytest.raises(EvidenceError, match="wrong-report-data"):
            self.result(platform, evidence)

    @pytest.mark.parametrize("extra_data", [b"", b"\0", bytes(32)])
    def test_a_quote_about_nothing(self, platform, extra_data):
        evidence = encode_collection(Collection(platform.eat(), Item(MEDIA_TYPE, AZURE.quote(extra_data))))
        with pytest.raises(EvidenceError, match="wrong-report-data"):
            self.result(platform, evidence)

    def test_a_report_alone_is_no_evidence_of_a_guest(self, platform):
        """As kind `sev-snp`, the paravisor's report would be about its runtime data, which is no EAT."""
        eat = platform.eat()
        report = parse_hcl_report(AZURE.hcl_report()).report
        evidence = encode_collection(Collection(eat, Item("application/vnd.amd.sev.snp.attestation-report", report)))
        anchor = AZURE.amd.anchor()
        rule = {"sev-snp": Reference({"measurement": b"m" * 48, "vmpl": 0})}
        with pytest.raises(EvidenceError, match="wrong-report-data"):
            self.result(platform, evidence, anchors=(anchor,), runtime=rule)

    @pytest.mark.parametrize("named", [{"measurement": b"m" * 48}, {"pcr4": bytes(32)}, {"pcr7": bytes(32)}])
    def test_reference_values_that_name_no_code(self, named):
        with pytest.raises(ConfigurationError, match="must name all of"):
            Policy((AZURE.anchor(),), {"azure-cvm": Reference(named)}, frozenset(), ())


def test_a_foreign_root():
    foreign = AzureHardware(AmdHardware(test_root="foreign"))
    with pytest.raises(EvidenceError, match="untrusted-anchor"):
        KIND.verify(foreign.quote(EXTRA), foreign.amd.endorsements(), [AZURE.anchor()], NOW)


@pytest.mark.parametrize("now", [0, NOW - 10**9, NOW + 10**9])
def test_the_wrong_time(now):
    assert refusal(AZURE.quote(EXTRA), now=now).startswith("endorsement-")


def test_what_is_written_is_read():
    data = AZURE.quote(EXTRA)
    assert encode_quote(decode_quote(data)) == data
