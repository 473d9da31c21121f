"""Real reports of AMD and Azure machines (../shared/vectors): accepted at their time, and not with one bit changed."""

import base64
import hashlib
import json
import struct

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave.errors import EvidenceError
from edgeclave.evidence import azure_cvm, sev_snp
from edgeclave.evidence.amd_certificates import ROOTS, verify_chain
from edgeclave.evidence.amd_endorsements import ENDORSEMENT_KEY, TYPES
from edgeclave.evidence.anchors import Anchor, key_fingerprint
from edgeclave.evidence.azure_cvm_files import read_json
from edgeclave.evidence.endorsements import Endorsements, read_any
from edgeclave.evidence.hcl_report import attestation_key, parse_hcl_report
from edgeclave.evidence.kinds import detect
from edgeclave.evidence.tpm import Quote
from tests.fixtures.amd_hardware import AmdHardware
from tests.fixtures.real_vectors import real_vector

IN_2025 = 1_750_000_000  # all certificates are valid
VLEK_EXPIRED = 1_765_404_862
SNP = [Anchor("sev-snp", "sev-snp", digest, name=name) for name, digest in ROOTS.items()]
AZURE = [Anchor("azure-cvm", "shared-guest", digest, name=name) for name, digest in ROOTS.items()]
MILAN_CHAIN = "amd/trustee/milan_ask_ark_asvk.pem"


def endorsements(*names):
    return Endorsements(each for name in names for each in read_any(real_vector(name), TYPES))


def report(name):
    data = real_vector(name)
    return bytes.fromhex(data.decode()) if name.endswith(".hex") else data


CASES = {
    "a guest on Milan": ("amd/report_milan.hex", "amd/vcek_milan.der", "amd/cert_chain_milan"),
    "an Azure paravisor on Milan": ("amd/trustee/test-report.bin", "amd/trustee/test-vcek.der", MILAN_CHAIN),
    "a guest on Milan of a provider with VLEK": (
        "amd/trustee/test-vlek-report.bin",
        "amd/trustee/test-vlek.der",
        MILAN_CHAIN,
    ),
}
EXPECTED = {
    "a guest on Milan": (2, 0, "7a1e5c266c0108db"),
    "an Azure paravisor on Milan": (2, 0, "a1f3930413247bb3"),
    "a guest on Milan of a provider with VLEK": (3, 1, "8922ebbdd00ec2c5"),
}


@pytest.mark.parametrize("case", CASES)
class TestReports:
    def test_accepted_under_amds_root(self, case):
        data, *files = CASES[case]
        found = sev_snp.KIND.verify(report(data), endorsements(*files), SNP, IN_2025)
        version, vmpl, measurement = EXPECTED[case]
        assert found.anchor.name == "amd-milan-root"
        assert found.details["report version"] == version
        assert found.runtime["vmpl"] == vmpl
        assert found.runtime["measurement"].hex().startswith(measurement)
        assert not found.debug
        assert detect(report(data)) == ("sev-snp", report(data))

    @pytest.mark.parametrize(
        ("now", "code"), [(1_600_000_000, "endorsement-not-yet-valid"), (2_400_000_000, "endorsement-expired")]
    )
    def test_refused_at_the_wrong_time(self, case, now, code):
        data, *files = CASES[case]
        with pytest.raises(EvidenceError, match=code):
            sev_snp.KIND.verify(report(data), endorsements(*files), SNP, now)

    def test_refused_under_a_test_root(self, case):
        data, *files = CASES[case]
        with pytest.raises(EvidenceError, match="untrusted-anchor"):
            sev_snp.KIND.verify(report(data), endorsements(*files), [AmdHardware().anchor()], IN_2025)

    def test_every_bit_of_the_report_matters(self, case):
        data, *files = CASES[case]
        good, known = report(data), endorsements(*files)

        @settings(max_examples=200, deadline=None)
        @given(position=st.integers(0, len(good) * 8 - 1))
        def flip(position):
            bad = bytearray(good)
            bad[position // 8] ^= 1 << position % 8
            with pytest.raises(EvidenceError):
                sev_snp.KIND.verify(bytes(bad), known, SNP, IN_2025)

        flip()

    def test_every_bit_of_the_certificate_matters(self, case):
        data, certificate, chain = CASES[case]
        good, above, reported = real_vector(certificate), read_any(real_vector(chain), TYPES), report(data)

        @settings(max_examples=200, deadline=None)
        @given(position=st.integers(0, len(good) * 8 - 1))
        def flip(position):
            bad = bytearray(good)
            bad[position // 8] ^= 1 << position % 8
            known = Endorsements([*above, *read_any(bytes(bad), TYPES)])
            with pytest.raises(EvidenceError):
                sev_snp.KIND.verify(reported, known, SNP, IN_2025)

        flip()

    def test_with_the_chain_of_another_product(self, case):
        data, certificate, _ = CASES[case]
        with pytest.raises(EvidenceError, match="no-endorsement"):
            sev_snp.KIND.verify(
                report(data), endorsements(certificate, "amd/trustee/genoa_ask_ark_asvk.pem"), SNP, IN_2025
            )


def test_the_vlek_expired():
    data, *files = CASES["a guest on Milan of a provider with VLEK"]
    with pytest.raises(EvidenceError, match="endorsement-expired"):
        sev_snp.KIND.verify(report(data), endorsements(*files), SNP, VLEK_EXPIRED)


@pytest.mark.parametrize("certificate", ["test-vcek-invalid-legacy.der", "test-vcek-invalid-new.der"])
def test_certificates_that_amd_never_issued(certificate):
    known = endorsements(f"amd/trustee/{certificate}", MILAN_CHAIN)
    with pytest.raises(EvidenceError, match="no-endorsement"):
        sev_snp.KIND.verify(report("amd/trustee/test-report.bin"), known, SNP, IN_2025)
    with pytest.raises(EvidenceError, match="bad-endorsement-signature"):
        verify_chain(real_vector(f"amd/trustee/{certificate}"), known, SNP, IN_2025)


def test_the_certificate_of_another_chip():
    known = endorsements("amd/vcek_milan.der", MILAN_CHAIN)
    with pytest.raises(EvidenceError, match="no-endorsement"):
        sev_snp.KIND.verify(report("amd/trustee/test-report.bin"), known, SNP, IN_2025)


def test_the_chain_of_turin():
    """There is no real report of Turin at hand, but a VCEK."""
    certificate = real_vector("amd/vcek_turin.der")
    found = verify_chain(certificate, endorsements("amd/cert_chain_turin"), SNP, IN_2025)
    assert (found.kind, found.anchor.name) == ("VCEK", "amd-turin-root")
    assert found.said.chip_id.hex() == "1e550a8ee5cf9f4d"
    with pytest.raises(EvidenceError, match="no-endorsement"):
        verify_chain(certificate, endorsements("amd/cert_chain_milan"), SNP, IN_2025)


@pytest.mark.parametrize("product", ["milan", "genoa", "turin"])
def test_pinned_roots_are_those_that_amd_publishes(product):
    files = f"amd/roots/{product}/ark.pem", f"amd/trustee/{product}_ask_ark_asvk.pem"
    found = [each for name in files for each in read_any(real_vector(name), TYPES) if each.type == "amd-root"]
    keys = [x509.load_der_x509_certificate(each.value).public_key() for each in found]
    assert {key_fingerprint(key) for key in keys} == {ROOTS[f"amd-{product}-root"]}


class TestAzure:
    EVIDENCE = "azure-cvm/evidence-v1.json"

    def verify(self, data, now=IN_2025):
        return azure_cvm.KIND.verify(data, endorsements(MILAN_CHAIN), AZURE, now)

    def refusal(self, data):
        with pytest.raises(EvidenceError) as refused:
            self.verify(data)
        return refused.value.code

    def test_accepted(self):
        data = real_vector(self.EVIDENCE)
        found = self.verify(data)
        assert detect(data) == ("azure-cvm", data)
        assert found.report_data == b"challenge".ljust(64, b"\0")
        assert found.anchor.platform_class == "shared-guest"
        assert found.runtime["vmpl"] == 0
        assert len([name for name in found.runtime if name.startswith("pcr")]) == 24

    @pytest.mark.parametrize(
        ("now", "code"), [(1_600_000_000, "endorsement-not-yet-valid"), (2_400_000_000, "endorsement-expired")]
    )
    def test_refused_at_the_wrong_time(self, now, code):
        with pytest.raises(EvidenceError, match=code):
            self.verify(real_vector(self.EVIDENCE), now)

    def test_the_pair_of_files(self):
        """HCL report and quote as the vTPM gave them, the quote in the encoding of Rust's bincode."""
        hcl_report, raw = real_vector("azure-cvm/hcl-report.bin"), real_vector("azure-cvm/quote.bin")
        size, at, parts = struct.Struct("<Q"), 0, []
        for _ in range(2):
            (length,) = size.unpack_from(raw, at)
            parts.append(raw[at + 8 : at + 8 + length])
            at += 8 + length
        signature, message = parts
        (count,) = size.unpack_from(raw, at)
        values = [raw[at + 8 + 32 * index :][:32] for index in range(count)]
        key = attestation_key(parse_hcl_report(hcl_report).runtime_data)
        framed = struct.pack(">HHH", 0x14, 0x0B, len(signature)) + signature
        quote = Quote(key_fingerprint(key), message, framed, dict(enumerate(values)))
        data = azure_cvm.encode_quote(azure_cvm.Quote(hcl_report, quote))
        known = endorsements("azure-cvm/vcek.pem")
        subject = sev_snp.key_subject(sev_snp.parse_report(parse_hcl_report(hcl_report).report))
        assert known.candidates(ENDORSEMENT_KEY, subject)
        found = azure_cvm.KIND.verify(data, known, AZURE, IN_2025)
        assert found.report_data == b"challenge".ljust(64, b"\0")
        assert found.details["chip id"].startswith("19752a447db501a3")

    @pytest.mark.parametrize(
        ("part", "code"),
        [
            ("message", "bad-quote-signature"),
            ("signature", "bad-quote-signature"),
            ("pcrs", "wrong-pcr-digest"),
        ],
    )
    def test_a_changed_quote(self, part, code):
        file = json.loads(real_vector(self.EVIDENCE))
        quote = file["tpm_quote"]
        if part == "pcrs":
            quote["pcrs"][4] = bytes(32).hex()
        else:
            value = bytearray.fromhex(quote[part])
            value[60] ^= 1
            quote[part] = value.hex()
        assert self.refusal(json.dumps(file).encode()) == code

    def test_every_signed_bit_of_the_hcl_report_matters(self):
        """All but the padding, and that must be zeros."""
        file = json.loads(real_vector(self.EVIDENCE))
        good = bytearray(base64.urlsafe_b64decode(file["hcl_report"] + "=="))

        @settings(max_examples=200, deadline=None)
        @given(position=st.integers(0, len(good) * 8 - 1))
        def flip(position):
            bad = bytearray(good)
            bad[position // 8] ^= 1 << position % 8
            changed = {**file, "hcl_report": base64.urlsafe_b64encode(bad).decode().rstrip("=")}
            # The version of the header is 1 or 2 and nothing depends on it; no two differ in one bit.
            self.refusal(json.dumps(changed).encode())

        flip()

    def test_runtime_data_of_another_machine(self):
        file = json.loads(real_vector(self.EVIDENCE))
        other = real_vector("azure-cvm/hcl-report.bin")
        own = base64.urlsafe_b64decode(file["hcl_report"] + "==")
        swapped = other[: 32 + 0x4A0] + own[32 + 0x4A0 :]
        file["hcl_report"] = base64.urlsafe_b64encode(swapped).decode()
        known = Endorsements(
            [*read_any(real_vector(MILAN_CHAIN), TYPES), *read_any(real_vector("azure-cvm/vcek.pem"), TYPES)]
        )
        with pytest.raises(EvidenceError, match="wrong-runtime-data"):
            azure_cvm.KIND.verify(json.dumps(file).encode(), known, AZURE, IN_2025)

    def test_the_report_is_about_the_digest_of_the_runtime_data(self):
        hcl = parse_hcl_report(read_json(real_vector(self.EVIDENCE))[0])
        digest = hashlib.sha256(hcl.runtime_data).digest()
        assert sev_snp.parse_report(hcl.report).report_data == digest + bytes(32)
