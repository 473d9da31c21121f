"""The SEV-SNP report: every field at its place, one accepted form."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave.errors import EvidenceError
from edgeclave.evidence.sev_snp_report import PRODUCTS, Tcb, from_hex, is_report, parse_report, read_tcb, write_tcb
from tests.fixtures.amd_hardware import DEBUG, MIGRATION, OFFSETS, AmdHardware

HARDWARE = AmdHardware()


def refusal(data):
    with pytest.raises(EvidenceError) as refused:
        parse_report(data)
    return refused.value.code


@pytest.mark.parametrize(
    ("field", "written", "attribute", "read"),
    [
        ("version", 5, "version", 5),
        ("guest_svn", 7, "guest_svn", 7),
        ("family_id", b"f" * 16, "family_id", b"f" * 16),
        ("image_id", b"i" * 16, "image_id", b"i" * 16),
        ("vmpl", 2, "vmpl", 2),
        ("current_tcb", b"c" * 8, "current_tcb", b"c" * 8),
        ("platform_info", 0x25, "platform_info", 0x25),
        ("key_info", 0b101, "author_key_enabled", True),
        ("key_info", 0b101, "signing_key", "VLEK"),
        ("report_data", bytes(range(64)), "report_data", bytes(range(64))),
        ("measurement", bytes(range(48)), "measurement", bytes(range(48))),
        ("host_data", b"h" * 32, "host_data", b"h" * 32),
        ("id_key_digest", b"k" * 48, "id_key_digest", b"k" * 48),
        ("author_key_digest", b"a" * 48, "author_key_digest", b"a" * 48),
        ("report_id", b"r" * 32, "report_id", b"r" * 32),
        ("report_id_ma", b"a" * 32, "report_id_of_migration_agent", b"a" * 32),
        ("reported_tcb", b"t" * 8, "reported_tcb", b"t" * 8),
        ("cpuid", b"\x1a\x02\x01", "cpuid", (0x1A, 2, 1)),
        ("chip_id", bytes(range(64)), "chip_id", bytes(range(64))),
        ("committed_tcb", b"o" * 8, "committed_tcb", b"o" * 8),
        ("current_firmware", b"\x04\x34\x01", "current_firmware", (1, 52, 4)),
        ("committed_firmware", b"\x05\x37\x01", "committed_firmware", (1, 55, 5)),
        ("launch_tcb", b"l" * 8, "launch_tcb", b"l" * 8),
    ],
)
def test_every_field_stands_where_amd_says(field, written, attribute, read):
    assert getattr(parse_report(HARDWARE.report(**{field: written})), attribute) == read


@pytest.mark.parametrize(
    ("version", "cpuid", "mitigations"),
    [(2, None, None), (3, (0x19, 1, 1), None), (4, (0x19, 1, 1), None), (5, (0x19, 1, 1), (3, 1))],
)
def test_what_a_version_has(version, cpuid, mitigations):
    report = parse_report(HARDWARE.report(version=version, launch_mitigations=3, current_mitigations=1))
    assert report.cpuid == cpuid
    assert (report.launch_mitigations, report.current_mitigations) == (mitigations or (None, None))


def test_guest_policy():
    policy = parse_report(HARDWARE.report(policy=0x3_0137 | DEBUG | 1 << 20)).policy
    assert policy.abi == (1, 0x37)
    assert policy.smt_allowed
    assert policy.debug_allowed
    assert policy.single_socket_required
    assert not policy.migration_agent_allowed
    assert parse_report(HARDWARE.report(policy=MIGRATION)).policy.migration_agent_allowed


@pytest.mark.parametrize(
    ("cpuid", "product"),
    [
        (b"\x19\x01\x01", "Milan"),
        (b"\x19\x11\x01", "Genoa"),
        (b"\x19\xa0\x02", "Genoa"),
        (b"\x1a\x02\x01", "Turin"),
        (b"\x1a\x11\x00", "Turin"),
        (b"\x17\x31\x00", None),
        (b"\x19\x50\x00", None),
    ],
    ids=["Milan", "Genoa", "Bergamo", "Turin", "Turin Dense", "Rome, which has no SNP", "a client processor"],
)
def test_product(cpuid, product):
    assert parse_report(HARDWARE.report(cpuid=cpuid)).product == product


@pytest.mark.parametrize("product", PRODUCTS)
def test_tcb_of_every_product(product):
    tcb = Tcb(1, 2, 3, 4, 5 if product == "Turin" else None)
    assert read_tcb(write_tcb(tcb, product), product) == tcb


def test_tcb_in_the_order_of_each_product():
    assert read_tcb(bytes(range(8)), "Milan") == Tcb(bootloader=0, tee=1, snp=6, microcode=7)
    assert read_tcb(bytes(range(8)), "Turin") == Tcb(bootloader=1, tee=2, snp=3, microcode=7, fmc=0)
    assert str(read_tcb(bytes(range(8)), "Turin")) == "bootloader 1 tee 2 snp 3 microcode 7 fmc 0"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HARDWARE.report()[:-1], id="truncated"),
        pytest.param(HARDWARE.report() + b"\0", id="a byte too many"),
        pytest.param(HARDWARE.report() * 1000, id="far too long"),
        pytest.param(HARDWARE.report(version=1), id="version 1"),
        pytest.param(HARDWARE.report(version=6), id="a version nobody knows"),
        pytest.param(HARDWARE.report(algorithm=0), id="no algorithm"),
        pytest.param(HARDWARE.report(algorithm=2), id="another algorithm"),
        pytest.param(HARDWARE.report(key_info=7 << 2), id="signed by no key"),
        pytest.param(HARDWARE.report(key_info=2 << 2), id="signed by a key nobody knows"),
        pytest.param(HARDWARE.report()[:-1] + b"\1", id="a byte after the signature"),
    ],
)
def test_what_is_no_report(data):
    assert refusal(data) == "malformed-quote"


@pytest.mark.parametrize("text", [HARDWARE.report().hex(), HARDWARE.report().hex(" ", 32).upper() + "\n"])
def test_a_file_in_hex(text):
    assert is_report(from_hex(text.encode()))


@pytest.mark.parametrize("data", [b"", HARDWARE.report(), b"g" * 2368, b"\xff" * 2368, b"a" * 2369, b"ab" * 10_000])
def test_anything_else_stays_as_it_is(data):
    assert from_hex(data) == data


def test_detection():
    assert is_report(HARDWARE.report())
    assert not is_report(HARDWARE.report(version=9))
    assert not is_report(HARDWARE.report() + b"\0")
    assert not is_report(bytes(0x4A0))


@settings(max_examples=200)
@given(data=st.binary(max_size=1300))
def test_any_bytes_are_a_report_or_refused(data):
    padded = data[:0x4A0].ljust(0x4A0, b"\0")
    for candidate in (data, struct.pack("<I", 3) + padded[4:0x34] + struct.pack("<I", 1) + padded[0x38:]):
        try:
            parse_report(candidate)
        except EvidenceError as error:
            assert error.code == "malformed-quote"  # noqa: PT017


def test_the_table_of_offsets_ends_before_the_signature():
    assert max(offset + struct.calcsize(form) for offset, form in OFFSETS.values()) <= 0x2A0
