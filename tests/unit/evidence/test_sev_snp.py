"""SEV-SNP evidence under a test root: what is accepted, and the one reason for which anything else is refused."""

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave.errors import ConfigurationError, EvidenceError
from edgeclave.evidence.amd_certificates import ROOTS, verify_chain
from edgeclave.evidence.amd_endorsements import TYPES
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.endorsements import Endorsements, read_any, store
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.reference import Reference
from edgeclave.evidence.sev_snp import KIND, check_report
from edgeclave.evidence.sev_snp_report import parse_report
from edgeclave.evidence.verifier import Verifier
from tests.fixtures.amd_hardware import (
    DAY,
    DEBUG,
    MIGRATION,
    MILAN_TCB,
    NO_MIGRATION_NO_DEBUG,
    NOW,
    TURIN_CHIP_ID,
    TURIN_TCB,
    AmdHardware,
    integer,
    rsa_key,
    text,
)

MILAN = AmdHardware()
VLEK = AmdHardware(signer="VLEK")
GENOA = AmdHardware("Genoa")
TURIN = AmdHardware("Turin", chip_id=TURIN_CHIP_ID, tcb=TURIN_TCB)
FOREIGN = AmdHardware(test_root="foreign")
REPORT_DATA = bytes(range(64))
AMD = [Anchor("sev-snp", "sev-snp", digest, name=name) for name, digest in ROOTS.items()]


def verify(hardware, report=None, *, endorsements=None, anchors=None, now=NOW):
    return KIND.verify(
        hardware.report(REPORT_DATA) if report is None else report,
        hardware.endorsements() if endorsements is None else endorsements,
        [hardware.anchor()] if anchors is None else anchors,
        now,
    )


def refusal(*arguments, **named):
    with pytest.raises(EvidenceError) as refused:
        verify(*arguments, **named)
    assert refused.value.advice or refused.value.code == "malformed-quote"
    return refused.value.code


@pytest.mark.parametrize("hardware", [MILAN, GENOA, TURIN, VLEK], ids=["Milan", "Genoa", "Turin", "Milan, VLEK"])
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_every_product_and_version(hardware, version):
    found = verify(hardware, hardware.report(REPORT_DATA, version=version))
    assert found.anchor == hardware.anchor()
    assert found.report_data == REPORT_DATA
    assert found.platform_instance == hardware.chip_id
    assert not found.debug
    assert found.runtime["measurement"] == b"m" * 48
    assert found.runtime["vmpl"] == 0


def test_everything_measured_is_a_register_of_its_size():
    for hardware in (MILAN, TURIN):
        for name, value in verify(hardware).runtime.items():
            assert KIND.registers[name] == (len(value) if isinstance(value, bytes) else 0)
    assert set(KIND.registers) == set(verify(TURIN).runtime)


def test_the_tcb_is_measured_as_reported_and_at_launch():
    measured = verify(MILAN, MILAN.report(launch_tcb=bytes.fromhex("0200000000000770"))).runtime
    assert [measured[name] for name in ("bootloader", "tee", "snp", "microcode")] == [3, 0, 8, 0x73]
    assert [measured[f"launch_{name}"] for name in ("bootloader", "tee", "snp", "microcode")] == [2, 0, 7, 0x70]
    assert verify(TURIN).runtime["fmc"] == 1


def test_debug_is_the_platforms():
    assert verify(MILAN, MILAN.report(policy=NO_MIGRATION_NO_DEBUG | DEBUG)).debug


def test_a_provider_that_masks_chips_cannot_tell_them_apart():
    one, other = (
        verify(hardware, hardware.report(chip_id=bytes(64))).platform_instance
        for hardware in (VLEK, AmdHardware(signer="VLEK"))
    )
    assert one == other
    assert len(one) == 32


def test_a_chip_that_is_masked_under_a_vcek_is_no_platform():
    assert refusal(MILAN, MILAN.report(chip_id=bytes(64))) == "chip-id-masked"


def test_a_migration_agent_could_read_the_guest():
    assert refusal(MILAN, MILAN.report(policy=NO_MIGRATION_NO_DEBUG | MIGRATION)) == "migration-agent"


class TestReportAndCertificate:
    def test_one_flipped_bit(self):
        good = MILAN.report(REPORT_DATA)
        endorsements, anchors = MILAN.endorsements(), [MILAN.anchor()]

        @settings(max_examples=300, deadline=None)
        @given(position=st.integers(0, len(good) * 8 - 1))
        def flip(position):
            bad = bytearray(good)
            bad[position // 8] ^= 1 << position % 8
            refusal(MILAN, bytes(bad), endorsements=endorsements, anchors=anchors)

        flip()

    @pytest.mark.parametrize("size", [0, 1, 0x2A0, 0x49F])
    def test_truncated(self, size):
        assert refusal(MILAN, MILAN.report()[:size]) == "malformed-quote"

    def test_signed_by_another_key(self):
        other = AmdHardware()
        assert refusal(MILAN, other.report()) == "bad-quote-signature"

    def test_zeros_are_no_signature(self):
        assert refusal(MILAN, MILAN.report()[:0x2A0] + bytes(0x200)) == "bad-quote-signature"

    def test_another_chip(self):
        assert refusal(MILAN, MILAN.report(chip_id=b"c" * 64)) == "no-endorsement"

    def test_another_tcb(self):
        """The host installed a VCEK of an older TCB than it reports, or reports more than it has."""
        report = MILAN.report(reported_tcb=bytes.fromhex("0300000000000874"))
        assert refusal(MILAN, report) == "no-endorsement"

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({"reported_tcb": bytes.fromhex("0300000000000874")}, id="TCB"),
            pytest.param({"reported_tcb": bytes.fromhex("0300000001000873")}, id="a reserved byte of the TCB"),
            pytest.param({"chip_id": b"c" * 64}, id="chip"),
            pytest.param({"key_info": 1 << 2}, id="kind of key"),
            pytest.param({"cpuid": b"\x19\x11\x01"}, id="product"),
            pytest.param({"cpuid": b"\x17\x31\x00"}, id="a product without SNP"),
        ],
    )
    def test_what_the_certificate_says_and_the_report_does_not(self, changes):
        """Even if the look-up found it."""
        key = verify_chain(MILAN.certificate, MILAN.endorsements(), [MILAN.anchor()], NOW)
        check_report(parse_report(MILAN.report()), key)
        with pytest.raises(EvidenceError, match="endorsement-mismatch"):
            check_report(parse_report(MILAN.report(**changes)), key)

    def test_of_several_vleks_the_one_that_signed_is_found(self):
        region = AmdHardware(signer="VLEK", begin=NOW - DAY)
        both = Endorsements([*VLEK.endorsement_list(), *region.endorsement_list()])
        for hardware in (VLEK, region):
            assert verify(hardware, endorsements=both).report_data == REPORT_DATA


class TestAnchors:
    def test_a_test_root_is_not_amds(self):
        assert refusal(MILAN, anchors=AMD) == "untrusted-anchor"

    def test_a_foreign_root(self):
        ours = [each for file in (MILAN.root, MILAN.signing_certificate) for each in read_any(file, TYPES)]
        everything = Endorsements([*ours, *FOREIGN.endorsement_list()])
        assert refusal(FOREIGN, endorsements=everything, anchors=[MILAN.anchor()]) == "bad-endorsement-signature"

    def test_no_anchor_for_the_product(self):
        assert refusal(MILAN, anchors=[anchor for anchor in AMD if "milan" not in anchor.name]) == "untrusted-anchor"

    def test_the_right_one_of_many_is_found(self):
        found = verify(MILAN, anchors=[*AMD, FOREIGN.anchor(), MILAN.anchor()])
        assert found.anchor == MILAN.anchor()
        assert found.anchor.platform_class == "emulated"

    def test_a_test_root_can_lie_in_no_other_class(self):
        anchor = replace(MILAN.anchor(), platform_class="sev-snp")
        with pytest.raises(ConfigurationError, match="emulated"):
            Policy((anchor,), {"sev-snp": Reference({"measurement": b"m" * 48, "vmpl": 0})}, frozenset(), ())

    def test_a_root_of_another_product_with_the_right_names(self):
        """Genoa's root certifies a signing key named as Milan's."""
        swapped = AmdHardware("Milan", test_root="genoa")
        genoa_root = AmdHardware("Genoa", test_root="genoa").root
        files = [genoa_root, swapped.signing_certificate, swapped.certificate]
        endorsements = Endorsements(each for file in files for each in read_any(file, TYPES))
        assert refusal(swapped, endorsements=endorsements) == "no-endorsement"


class TestChain:
    @pytest.mark.parametrize("missing", ["root", "signing_certificate", "certificate"])
    def test_a_missing_certificate(self, missing):
        files = [getattr(MILAN, name) for name in ("root", "signing_certificate", "certificate") if name != missing]
        endorsements = Endorsements(each for file in files for each in read_any(file, TYPES))
        assert refusal(MILAN, endorsements=endorsements) == "no-endorsement"

    @pytest.mark.parametrize("which", ["root", "signing_certificate", "certificate"])
    def test_one_flipped_bit(self, which):
        good = getattr(MILAN, which)
        others = [getattr(MILAN, name) for name in ("root", "signing_certificate", "certificate") if name != which]
        report = MILAN.report()

        @settings(max_examples=150, deadline=None)
        @given(position=st.integers(0, len(good) * 8 - 1))
        def flip(position):
            bad = bytearray(good)
            bad[position // 8] ^= 1 << position % 8
            endorsements = Endorsements(each for file in (bytes(bad), *others) for each in read_any(file, TYPES))
            refusal(MILAN, report, endorsements=endorsements)

        flip()

    @pytest.mark.parametrize(
        ("now", "code"),
        [
            (MILAN.begin - 1, "endorsement-not-yet-valid"),
            (MILAN.begin, None),
            (MILAN.end, None),
            (MILAN.end + 1, "endorsement-expired"),
            (0, "endorsement-not-yet-valid"),
            (1 << 62, "endorsement-expired"),
        ],
    )
    def test_time_in_both_directions(self, now, code):
        if code is None:
            verify(MILAN, now=now)
        else:
            assert refusal(MILAN, now=now) == code

    @pytest.mark.parametrize("which", ["root", "signing_certificate"])
    def test_time_of_the_certificates_above(self, which):
        for changes, code in (
            ({"end": NOW - 1}, "endorsement-expired"),
            ({"begin": NOW + 1}, "endorsement-not-yet-valid"),
        ):
            files = {name: getattr(MILAN, name) for name in ("root", "signing_certificate", "certificate")}
            files[which] = getattr(replace(MILAN, **changes), which)
            endorsements = Endorsements(each for file in files.values() for each in read_any(file, TYPES))
            assert refusal(MILAN, endorsements=endorsements) == code

    def test_a_vcek_issued_by_the_key_for_vleks(self):
        """The signing key of one kind vouches for the other."""
        vlek_signer = AmdHardware(signer="VLEK", key=MILAN.key)
        crossed = vlek_signer.leaf(name="SEV-VCEK", _4=MILAN.chip_id, _5=None, _2=text("Milan-B0"))
        files = [vlek_signer.root, vlek_signer.signing_certificate, crossed]
        endorsements = Endorsements(each for file in files for each in read_any(file, TYPES))
        assert refusal(MILAN, endorsements=endorsements) == "wrong-product"

    def test_a_vcek_that_signs_another_vcek(self):
        """An endorsement key is no authority."""
        forger = AmdHardware(key=MILAN.key)
        forged = MILAN.leaf()
        assert forger.key is MILAN.key
        certificate = x509.load_der_x509_certificate(forged)
        key = ec.generate_private_key(ec.SECP384R1())
        builder = x509.CertificateBuilder(
            issuer_name=certificate.subject,
            subject_name=certificate.subject,
            public_key=key.public_key(),
            serial_number=5,
            not_valid_before=certificate.not_valid_before_utc,
            not_valid_after=certificate.not_valid_after_utc,
            extensions=list(certificate.extensions),
        )
        der = builder.sign(MILAN.key, hashes.SHA384()).public_bytes(serialization.Encoding.DER)
        endorsements = Endorsements(
            each for file in (MILAN.root, MILAN.signing_certificate, der) for each in read_any(file, TYPES)
        )
        assert refusal(replace(MILAN, key=key), endorsements=endorsements) == "wrong-product"

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            pytest.param({"_3_8": integer(0x74)}, "no-endorsement", id="another microcode"),
            pytest.param({"_3_8": None}, "no-endorsement", id="no microcode"),
            pytest.param({"_3_8": bytes([2, 2, 0, 0x73])}, "no-endorsement", id="microcode in another encoding"),
            pytest.param({"_3_8": bytes([2, 3, 1, 0, 0])}, "no-endorsement", id="microcode over 255"),
            pytest.param({"_3_8": bytes([2, 1, 0xFF])}, "no-endorsement", id="negative microcode"),
            pytest.param({"_4": bytes(63)}, "no-endorsement", id="a short chip id"),
            pytest.param({"_4": None}, "no-endorsement", id="no chip"),
            pytest.param({"_5": text("CN=cloud.example")}, "no-endorsement", id="a chip and a provider"),
            pytest.param({"_2": text("Genoa-B0")}, "wrong-product", id="another product"),
            pytest.param({"_2": text("Rome-B0")}, "no-endorsement", id="a product without SNP"),
            pytest.param({"_2": b"\x16\x7fMilan"}, "no-endorsement", id="a length beyond the end"),
            pytest.param({"_4": bytes([4, 64]) + MILAN.chip_id}, None, id="a chip id in an OCTET STRING, as some are"),
            pytest.param({"_2": text("Milan")}, None, id="a product without stepping"),
        ],
    )
    def test_extensions(self, changes, code):
        endorsements = Endorsements(
            each
            for file in (MILAN.root, MILAN.signing_certificate, MILAN.leaf(**changes))
            for each in read_any(file, TYPES)
        )
        if code is None:
            verify(MILAN, endorsements=endorsements)
        else:
            assert refusal(MILAN, endorsements=endorsements) == code

    def test_a_key_on_another_curve(self):
        weak = replace(MILAN, key=ec.generate_private_key(ec.SECP256R1()))
        with pytest.raises(EvidenceError, match="malformed-endorsement"):
            KIND.verify(MILAN.report(), weak.endorsements(), [weak.anchor()], NOW)


class TestRevocation:
    def test_nothing_revoked(self):
        found = verify(MILAN, endorsements=MILAN.endorsements(MILAN.revocation_list([1, 2, 3])))
        assert found.details["revocation list"] == "checked"
        assert verify(MILAN).details["revocation list"] == "none at hand"

    def test_the_signing_key_is_revoked(self):
        assert refusal(MILAN, endorsements=MILAN.endorsements(MILAN.revocation_list([65537]))) == "platform-revoked"

    def test_the_latest_list_counts_whatever_came_with_the_evidence(self):
        old, new = MILAN.revocation_list(begin=NOW - 2 * DAY), MILAN.revocation_list([65537])
        assert refusal(MILAN, endorsements=MILAN.endorsements(new, old)) == "platform-revoked"

    @pytest.mark.parametrize(
        ("begin", "end", "code"),
        [
            (NOW - 2 * DAY, NOW - DAY, "endorsement-expired"),
            (NOW + DAY, NOW + 2 * DAY, "endorsement-not-yet-valid"),
        ],
        ids=["too old", "of the future"],
    )
    def test_once_there_is_a_list_a_valid_one_must_be_there(self, begin, end, code):
        endorsements = MILAN.endorsements(MILAN.revocation_list(begin=begin, end=end))
        assert refusal(MILAN, endorsements=endorsements) == code

    def test_a_list_by_someone_else(self):
        endorsements = MILAN.endorsements(FOREIGN.revocation_list())
        assert refusal(MILAN, endorsements=endorsements) == "bad-endorsement-signature"
        both = MILAN.endorsements(FOREIGN.revocation_list([65537]), MILAN.revocation_list())
        assert verify(MILAN, endorsements=both).details["revocation list"] == "checked"


class TestPolicy:
    """The floor of the TCB, VMPL and measurement are reference values."""

    @pytest.mark.parametrize(
        ("reference", "report", "code"),
        [
            pytest.param({}, {}, None, id="the right one"),
            pytest.param({"minimum_microcode": 0x73}, {}, None, id="at the floor"),
            pytest.param({"minimum_microcode": 0x74}, {}, "wrong-runtime", id="microcode below the floor"),
            pytest.param(
                {"minimum_launch_snp": 8},
                {"launch_tcb": bytes.fromhex("0300000000000773")},
                "wrong-runtime",
                id="launched below the floor, and updated since",
            ),
            pytest.param({"minimum_fmc": 1}, {}, "wrong-runtime", id="a component that the product lacks"),
            pytest.param({}, {"vmpl": 1}, "wrong-runtime", id="a less privileged part of the same guest"),
            pytest.param({}, {"measurement": b"x" * 48}, "wrong-runtime", id="other code"),
            pytest.param({"host_data": b"h" * 32}, {}, "wrong-runtime", id="other host data"),
            pytest.param({}, {"policy": NO_MIGRATION_NO_DEBUG | DEBUG}, "debug-platform", id="debug"),
        ],
    )
    def test_reference_values(self, reference, report, code):
        rule = Reference({"measurement": b"m" * 48, "vmpl": 0, **reference})
        policy = Policy((MILAN.anchor(),), {"sev-snp": rule}, frozenset({"emulated"}), ())
        verifier = Verifier(policy, endorsements=MILAN.endorsements())
        if code is None:
            verifier.verify_quote("sev-snp", MILAN.report(**report), now=NOW)
        else:
            with pytest.raises(EvidenceError, match=code):
                verifier.verify_quote("sev-snp", MILAN.report(**report), now=NOW)

    @pytest.mark.parametrize("named", [{"measurement": b"m" * 48}, {"vmpl": 0}, {"minimum_microcode": 1}])
    def test_a_reference_value_must_name_measurement_and_vmpl(self, named):
        with pytest.raises(ConfigurationError, match="vmpl"):
            Policy((MILAN.anchor(),), {"sev-snp": Reference(named)}, frozenset({"emulated"}), ())

    def test_endorsements_in_a_folder(self, tmp_path):
        for endorsement in MILAN.endorsement_list(MILAN.revocation_list()):
            store(tmp_path, endorsement)
        found = verify(MILAN, endorsements=Endorsements(folders=[tmp_path]))
        assert found.details["revocation list"] == "checked"


def test_amds_roots_are_pinned_by_key():
    assert KIND.roots == ROOTS
    assert len({MILAN.anchor().fingerprint, *ROOTS.values()}) == 4
    assert rsa_key("test ARK", 4096).key_size == 4096
    assert MILAN.tcb == MILAN_TCB
