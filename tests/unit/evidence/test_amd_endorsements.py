"""AMD's endorsements in every form that files have."""

import struct
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.evidence.amd_endorsements import ENDORSEMENT_KEY, TYPES
from edgeclave.evidence.endorsements import read_any
from tests.fixtures.amd_hardware import TURIN_CHIP_ID, TURIN_TCB, AmdHardware

MILAN = AmdHardware()
FILES = (MILAN.root, MILAN.signing_certificate, MILAN.certificate, MILAN.revocation_list())
GUIDS = (
    "c0b406a4-a803-4952-9743-3fb6014cd0ae",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    "63da758d-e664-4564-adc5-f4b93be8accd",
    "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",
)
ALL = {"amd-root", "amd-signing-key", "amd-endorsement-key", "amd-revocation-list"}


def table(parts, guids=GUIDS):
    """struct cert_table: entries, one of zeros, then the certificates."""
    offset, head, body = 24 * (len(parts) + 1), b"", b""
    for guid, part in zip(guids, parts, strict=True):
        head += UUID(guid).bytes + struct.pack("<II", offset + len(body), len(part))
        body += part
    return head + bytes(24) + body


def pem(der):
    try:
        return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
    except ValueError:
        return x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"".join(pem(file) for file in FILES), id="PEM"),
        pytest.param(table(FILES), id="certificate table"),
        pytest.param(table(FILES) + bytes(4096), id="certificate table in whole pages"),
        pytest.param(table([pem(file) for file in FILES]), id="certificate table of PEM"),
    ],
)
def test_all_of_them_in_one_file(data):
    found = read_any(data, TYPES)
    assert {each.type for each in found} == ALL
    assert {each.value for each in found} == set(FILES)


@pytest.mark.parametrize("number", range(4))
def test_each_in_der(number):
    (found,) = read_any(FILES[number], TYPES)
    assert found.value == FILES[number]


def test_what_is_read_is_read_again():
    for each in read_any(b"".join(pem(file) for file in FILES), TYPES):
        kind = next(kind for kind in TYPES if kind.name == each.type)
        assert list(kind.read(each.value)) == [each]


def test_what_they_are_about():
    subjects = {each.type: each.subject for each in MILAN.endorsement_list(MILAN.revocation_list())}
    assert subjects == {
        "amd-root": "ARK-Milan",
        "amd-signing-key": "SEV-Milan",
        "amd-endorsement-key": f"{MILAN.chip_id.hex()}-0300000000000873",
        "amd-revocation-list": "ARK-Milan",
    }
    turin = AmdHardware("Turin", chip_id=TURIN_CHIP_ID, tcb=TURIN_TCB)
    (found,) = ENDORSEMENT_KEY.read(turin.certificate)
    assert found.subject == f"{TURIN_CHIP_ID.hex()}-{TURIN_TCB}"
    (found,) = ENDORSEMENT_KEY.read(AmdHardware(signer="VLEK").certificate)
    assert found.subject == "vlek-0300000000000873"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", id="PEM of nothing"),
        pytest.param(MILAN.certificate + b"\0", id="a byte after the certificate"),
        pytest.param(MILAN.certificate[:-1], id="a truncated certificate"),
        pytest.param(table(FILES)[:-1], id="a table that reaches beyond its end"),
        pytest.param(UUID(GUIDS[0]).bytes + struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF) + bytes(24), id="huge numbers"),
        pytest.param((UUID(GUIDS[0]).bytes + struct.pack("<II", 0, 24)) * 1000, id="a table without an end"),
        pytest.param(pem(MILAN.root) * 200, id="far too long"),
        pytest.param(MILAN.leaf(name="SEV-../../x"), id="a name that is a path"),
    ],
)
def test_what_holds_none(data):
    assert read_any(data, TYPES) == []


def test_subjects_are_safe_as_file_names():
    for name in ("SEV-../../etc", "SEV-VLEK-..", "ARK-/x"):
        hostile = MILAN.leaf(name=name)
        for each in read_any(hostile, TYPES):
            assert "/" not in each.subject
            assert ".." not in each.subject


@given(data=st.binary(max_size=400))
def test_no_bytes_at_all_make_it_fail(data):
    for candidate in (data, UUID(GUIDS[2]).bytes + data, b"-----BEGIN CERTIFICATE-----" + data):
        read_any(candidate, TYPES)
