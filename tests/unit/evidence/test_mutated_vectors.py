"""Every parser of bytes from outside, on mutated real vectors: it reads them or refuses them by an error of ours.

Whatever is accepted after a change must say exactly what the original says: a signature covers it, or it means nothing.
"""

from __future__ import annotations

import json
import struct
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings

from edgeclave import cose
from edgeclave.cloud.verifier_service.keyring import load_keyring, new_key, now_utc
from edgeclave.errors import EdgeclaveError, EvidenceError
from edgeclave.evidence import amd_endorsements, azure_cvm, ear, emulator, intel, maa, tpm
from edgeclave.evidence.amd_certificates import ROOTS, verify_chain
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.azure_cvm_files import read_json
from edgeclave.evidence.collection import decode_collection
from edgeclave.evidence.eat import read_eat
from edgeclave.evidence.endorsements import (
    MEDIA_TYPE,
    Endorsements,
    decode_carried,
    encode_carried,
    read_any,
)
from edgeclave.evidence.hcl_report import attestation_key, parse_hcl_report
from edgeclave.evidence.intel_collateral import verify_collateral
from edgeclave.evidence.kinds import KINDS, detect, endorsement_types
from edgeclave.evidence.sev_snp_report import from_hex, parse_report
from edgeclave.evidence.token_appraisal import appraise_token
from edgeclave.evidence.tokens import PinnedIssuer
from edgeclave.evidence.tpm_quote import parse_attest
from edgeclave.evidence.verifier import Verifier
from edgeclave.evidence.wrapped_files import contents
from tests.fixtures.amd_benches import CertifiedTpmBench, TpmBench
from tests.fixtures.benches import EmulatorBench
from tests.fixtures.evidence_bench import NONCE, NOW, Instance
from tests.fixtures.mutations import mutated
from tests.fixtures.real_vectors import real_vector

IN_2025 = 1752919000
VCEK_GUID, ASK_GUID = "63da758d-e664-4564-adc5-f4b93be8accd", "4ab7b379-bbac-4fe4-a02f-05aef327c782"
ISSUER = "https://verifier.example"

fuzzed = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def anchors(kind):
    return [Anchor(kind, min(KINDS[kind].classes), root, name=name) for name, root in KINDS[kind].roots.items()]


def amd_files():
    names = ("amd/vcek_milan.der", "amd/vcek_turin.der", "amd/cert_chain_milan", "amd/trustee/test-vlek.der")
    return tuple(real_vector(name) for name in (*names, "amd/trustee/milan_ask_ark_asvk.pem"))


def certificate_table():
    """As configfs-tsm gives it, of real certificates."""
    parts = {UUID(VCEK_GUID).bytes: real_vector("amd/trustee/test-vcek.der")}
    parts[UUID(ASK_GUID).bytes] = x509.load_pem_x509_certificates(real_vector("amd/cert_chain_milan"))[0].public_bytes(
        Encoding.DER
    )
    head, body, offset = b"", b"", 24 * (len(parts) + 1)
    for guid, der in parts.items():
        head += struct.pack("<16sII", guid, offset + len(body), len(der))
        body += der
    return head + bytes(24) + body


def refused_or(function, *arguments):
    """What it says, or None if it refuses by an error of ours; anything else fails the test."""
    try:
        return function(*arguments)
    except EdgeclaveError as error:
        assert error.code  # noqa: PT017
        return None


class TestQuotes:
    """The whole verification of a real quote."""

    CASES = (
        ("sgx", "intel/sgx_quote", "intel/sgx_quote_collateral.json"),
        ("tdx", "intel/tdx_quote", "intel/tdx_quote_collateral.json"),
        ("sev-snp", "amd/report_milan.hex", None),
        ("sev-snp", "amd/trustee/test-vlek-report.bin", None),
        ("azure-cvm", "azure-cvm/evidence-v1.json", None),
    )

    @pytest.mark.parametrize(("kind", "name", "collateral"), CASES, ids=[case[1] for case in CASES])
    def test_says_the_same_or_nothing(self, kind, name, collateral):
        good = KINDS[kind].trim(real_vector(name))
        files = (real_vector(collateral),) if collateral else amd_files()
        known = Endorsements(each for file in files for each in read_any(file, KINDS[kind].endorsement_types))
        said = KINDS[kind].verify(good, known, anchors(kind), IN_2025)

        @fuzzed
        @given(mutated((good,)))
        def check(data):
            found = refused_or(KINDS[kind].verify, data, known, anchors(kind), IN_2025)
            if found is not None and data != good:
                assert (found.runtime, found.report_data, found.platform_instance, found.debug) == (
                    said.runtime, said.report_data, said.platform_instance, said.debug,
                )  # fmt: skip

        check()


class TestParsers:
    def run(self, seeds, parse, examples=80):
        @settings(fuzzed, max_examples=examples)
        @given(mutated(seeds))
        def check(data):
            refused_or(parse, data)

        check()

    def test_quotes_of_intel(self):
        names = ("sgx_quote", "tdx_quote", "tdx_quote.bin", "tdx_quote_v5.bin", "tdx_quote_outdated")
        seeds = tuple(real_vector(f"intel/{name}") for name in names)
        for tee in (intel.SGX_TEE, intel.TDX_TEE):
            self.run(seeds, lambda data, tee=tee: intel.platform_of(data, tee))
        self.run(seeds, intel.quote_size)

    def test_reports_of_amd(self):
        seeds = (from_hex(real_vector("amd/report_milan.hex")), real_vector("amd/trustee/test-vlek-report.bin"))
        self.run(seeds, parse_report)

    def test_reports_of_the_paravisor(self):
        def parse(data):
            return attestation_key(parse_hcl_report(data).runtime_data)

        self.run((real_vector("azure-cvm/hcl-report.bin"),), parse, 200)

    def test_runtime_data(self):
        seeds = (parse_hcl_report(real_vector("azure-cvm/hcl-report.bin")).runtime_data,)
        self.run(seeds, attestation_key, 200)

    def test_files_of_attestation_agents(self):
        self.run((real_vector("azure-cvm/evidence-v1.json"),), read_json)

    def test_quotes_of_tpms(self):
        hcl_report, quote, _ = read_json(real_vector("azure-cvm/evidence-v1.json"))
        self.run((quote.attest,), parse_attest, 200)
        self.run((tpm.encode_quote(quote), TpmBench().quote(bytes(64))), tpm.decode_quote)
        self.run((CertifiedTpmBench().quote(bytes(64)),), lambda data: tpm.decode_quote(data, tpm.CertifiedQuote))
        self.run((azure_cvm.encode_quote(azure_cvm.Quote(hcl_report, quote)),), azure_cvm.decode_quote)

    def test_quotes_of_the_emulator(self):
        bench = EmulatorBench()
        quote = bench.quote(bytes(64))

        def verify(data):
            found = emulator.verify_quote(data, bench.key.public_key())
            assert data == quote or found is None

        self.run((quote,), verify, 200)

    def test_collections_and_claims(self):
        instance = Instance(EmulatorBench())
        evidence, eat = instance.evidence(), instance.eat()
        self.run((evidence,), decode_collection)
        self.run((eat,), cose.parse)
        self.run((eat,), read_eat, 200)

    def test_explanations_of_evidence(self):
        instance = Instance(EmulatorBench())
        evidence, verifier = instance.evidence(), Verifier(instance.bench.policy())

        def explain(data):
            explanation = verifier.explain(data, nonce=NONCE, now=NOW)
            assert data == evidence or any(check.error for check in explanation.checks)
            assert all(check.found or check.point for check in explanation.checks)

        self.run((evidence,), explain, 200)

    @pytest.mark.parametrize("name", [*KINDS])
    def test_what_a_glance_tells(self, name):
        seeds = tuple(map(real_vector, ("intel/sgx_quote", "intel/tdx_quote", "azure-cvm/evidence-v1.json")))
        self.run(
            (*seeds, EmulatorBench().quote(bytes(64))), lambda data: KINDS[name].looks_like(KINDS[name].trim(data)), 30
        )

    def test_wrapped_files(self):
        quote = real_vector("intel/sgx_quote")
        seeds = (
            quote.hex().encode(),
            json.dumps({"quote": quote.hex()}).encode(),
            real_vector("intel/sgx_report_bad.bin"),
        )
        self.run(seeds, lambda data: [detect(content.data) for content in contents(data)])


class TestEndorsements:
    def test_files_never_make_it_fail(self):
        names = ("intel/sgx_quote_collateral.json", "azure-cvm/vcek.pem", "intel/sgx_cert_ec_bad.der")
        seeds = (*amd_files(), certificate_table(), *map(real_vector, names))
        assert len(read_any(certificate_table(), amd_endorsements.TYPES)) == 2

        @settings(fuzzed, max_examples=200)
        @given(mutated(seeds))
        def check(data):
            for found in read_any(data, endorsement_types().values()):
                (again,) = endorsement_types()[found.type].read(found.value)
                assert again == found

        check()

    def test_collateral_verifies_as_it_was_signed_or_not_at_all(self):
        good = real_vector("intel/sgx_quote_collateral.json")
        signed = ("tcb_info", "qe_identity", "pck_crl", "root_ca_crl")
        said = json.loads(good)
        assert verify_collateral(good, anchors("sgx"), IN_2025)

        @settings(fuzzed, max_examples=250)
        @given(mutated((good,)))
        def check(data):
            if refused_or(verify_collateral, data, anchors("sgx"), IN_2025) is not None:
                found = json.loads(data)
                assert {name: found[name].lower() for name in signed} == {name: said[name].lower() for name in signed}

        check()

    @pytest.mark.parametrize("name", ["tcb_info", "qe_identity", "pck_crl", "root_ca_crl", "tcb_info_signature"])
    def test_every_part_of_collateral_matters(self, name):
        good = json.loads(real_vector("intel/sgx_quote_collateral.json"))

        @fuzzed
        @given(mutated((good[name].encode(),), most=1))
        def check(data):
            text = data.decode("utf-8", "replace")
            if text.lower() != good[name].lower():
                with pytest.raises(EvidenceError):
                    verify_collateral(json.dumps({**good, name: text}).encode(), anchors("sgx"), IN_2025)

        check()

    def test_collateral_has_one_form(self):
        """Hex with white space, which dcap-qvl does not take; a signature that says that it is not whole bytes."""
        good = json.loads(real_vector("intel/sgx_quote_collateral.json"))
        revoked = bytearray.fromhex(good["pck_crl"])
        count = len(revoked) - 1 - len(x509.load_der_x509_crl(bytes(revoked)).signature)
        assert (revoked[count], revoked[-1] & 1) == (0, 0)
        revoked[count] = 1
        for changes in (
            {"tcb_info_signature": " " + good["tcb_info_signature"]},
            {"qe_identity_signature": good["qe_identity_signature"] + "\n"},
            {"pck_crl": "\t" + good["pck_crl"]},
            {"pck_crl": revoked.hex()},
        ):
            with pytest.raises(EvidenceError, match="malformed-endorsement"):
                verify_collateral(json.dumps({**good, **changes}).encode(), anchors("sgx"), IN_2025)

    def test_chains_of_amd(self):
        good = real_vector("amd/vcek_milan.der")
        known = Endorsements(read_any(real_vector("amd/cert_chain_milan"), amd_endorsements.TYPES))
        roots = [Anchor("sev-snp", "sev-snp", root, name=name) for name, root in ROOTS.items()]
        key = verify_chain(good, known, roots, IN_2025)

        @settings(fuzzed, max_examples=150)
        @given(mutated((good, real_vector("amd/vcek_turin.der"))))
        def check(data):
            found = refused_or(verify_chain, data, known, roots, IN_2025)
            assert found is None or found.said == key.said

        check()

    def test_carried_ones(self):
        held = [each for file in amd_files() for each in read_any(file, amd_endorsements.TYPES)][:4]
        seed = encode_carried(held)

        @fuzzed
        @given(mutated((seed,)))
        def check(data):
            refused_or(decode_carried, MEDIA_TYPE, data, amd_endorsements.TYPES)

        check()


class TestTokens:
    @pytest.fixture(scope="class")
    @classmethod
    def signer(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("keys")
        new_key(folder, "one", now_utc())
        return load_keyring(folder, ISSUER)

    def test_tokens_and_key_sets(self, signer):
        jwks = json.dumps(signer.jwks()).encode()
        issuer, now = PinnedIssuer.from_jwks(ISSUER, jwks), int(now_utc().timestamp())
        real = real_vector("intel/sgx_quote")
        known = Endorsements(intel.read_collateral(real_vector("intel/sgx_quote_collateral.json")))
        platform = KINDS["sgx"].verify(real, known, anchors("sgx"), IN_2025)
        one = signer.signer(now)
        tokens = (
            maa.make_token(one, platform, policy=b"p", now=now, lifetime_seconds=60).encode(),
            ear.make_platform_ear(one, platform, nonce=None, now=now, lifetime_seconds=60).encode(),
        )

        @settings(fuzzed, max_examples=200)
        @given(mutated(tokens))
        def check(data):
            text = data.decode("latin-1")
            checks = list(appraise_token(text, issuer, None, None, now))
            assert data in tokens or any(each.error for each in checks)

        @settings(fuzzed, max_examples=150)
        @given(mutated((jwks,)))
        def check_keys(data):
            refused_or(PinnedIssuer.from_jwks, ISSUER, data)

        check()
        check_keys()
