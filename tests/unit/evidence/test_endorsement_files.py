"""Endorsements as other tools and services write them: read in whatever is around them, and never but whole."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.cli.main import run
from edgeclave.evidence.kinds import endorsement_types
from edgeclave.evidence.wrapped_files import MAX_LAYERS, MAX_VALUES, endorsements_in
from edgeclave.evidence.x509_files import MAX_IN_FILE, read_signed
from tests.fixtures.amd_hardware import AmdHardware
from tests.fixtures.intel_hardware import IntelHardware
from tests.fixtures.real_vectors import FOLDER, real_vector

MILAN = AmdHardware()
LIST = MILAN.revocation_list()
FILES = (MILAN.certificate, MILAN.signing_certificate, MILAN.root, LIST)
DER = b"".join(FILES)


def pem(der):
    read = x509.load_der_x509_crl if der == LIST else x509.load_der_x509_certificate
    return read(der).public_bytes(serialization.Encoding.PEM).decode()


PEM = "".join(map(pem, FILES))


def values_of(data):
    return {each.value for each in endorsements_in(data, endorsement_types().values())}


WRAPPED = {
    "DER behind one another": DER,
    "PEM with both kinds of ends of lines converted": PEM.replace("\n", "\r\r\n").encode(),
    "PEM with comments": "".join(f"Bag Attributes\n    name: x\n{pem(file)}# end\n" for file in FILES).encode(),
    "PEM in YAML": PEM.replace("\n", "\n    ").encode(),
    "PEM of Windows": b"\xef\xbb\xbf" + PEM.replace("\n", "\r\n").encode(),
    "PEM in UTF-16": PEM.encode("utf-16"),
    "hex": DER.hex().encode(),
    "hex in lines": "\n".join(DER.hex()[i : i + 64] for i in range(0, 2 * len(DER), 64)).encode(),
    "base64": base64.b64encode(DER),
    "base64 of PEM": base64.b64encode(PEM.encode()),
    "JSON with PEM, as Azure's service answers": json.dumps(
        {"vcekCert": pem(FILES[0]), "tcbm": "03000000000008", "certificateChain": "".join(map(pem, FILES[1:]))}
    ).encode(),
    "JSON with a list": json.dumps({"cert_chain": [base64.b64encode(file).decode() for file in FILES]}).encode(),
    "JSON with bytes as numbers": json.dumps(
        {"cert_chain": [{"cert_type": "VCEK", "data": list(FILES[0])}], "others": [list(b"".join(FILES[1:]))]}
    ).encode(),
}


@pytest.mark.parametrize("data", WRAPPED.values(), ids=WRAPPED)
def test_all_that_a_file_holds(data):
    assert values_of(data) == set(FILES)


def test_collateral_in_an_answer_of_a_quoting_service():
    collateral = IntelHardware(1_750_000_000).collateral("sgx")
    answer = json.dumps({"quote": "00", "collateral": json.loads(collateral)}).encode()
    found = endorsements_in(answer, endorsement_types().values())
    assert [each.type for each in found] == ["intel-collateral"]
    assert json.loads(found[0].value) == json.loads(collateral)


def test_collateral_behind_a_byte_order_mark():
    collateral = IntelHardware(1_750_000_000).collateral("sgx")
    assert values_of(b"\xef\xbb\xbf" + collateral) == {collateral}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(DER[:-1], id="cut off"),
        pytest.param(DER + b"\0", id="a byte behind it"),
        pytest.param(DER + b"0", id="the beginning of another"),
        pytest.param(DER + b"0\x84\0\0\0\1\0", id="a size in four bytes"),
        pytest.param(DER + b"0\x80\0\0", id="an indefinite size"),
        pytest.param(b"0\0" * MAX_IN_FILE + FILES[0], id="too many"),
        pytest.param(DER.hex().encode()[:-1], id="half a byte of hex less"),
        pytest.param(b'{"a":' * 2000 + b"0" + b"}" * 2000, id="JSON in JSON in JSON"),
        pytest.param(b'{"a":' + b"[" * 900 + b'"x"' + b"]" * 900 + b"}", id="lists in lists"),
        pytest.param(json.dumps({"a": "x", "b": [1, None, 2.5, [[]]], "c": {}}).encode(), id="JSON of other things"),
        pytest.param(
            json.dumps({str(i): "" for i in range(MAX_VALUES)} | {"last": pem(FILES[0])}).encode(), id="too many values"
        ),
        pytest.param(b"[" + json.dumps(PEM).encode() + b"]", id="JSON that is no object"),
    ],
)
def test_what_holds_none(data):
    assert values_of(data) == set()


def test_layers_have_an_end():
    data = FILES[0]
    for _ in range(MAX_LAYERS):
        data = base64.b64encode(data)
    assert values_of(data) == {FILES[0]}
    assert values_of(base64.b64encode(data)) == set()


def test_one_that_is_broken_does_not_hide_the_others_in_pem():
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    assert values_of((broken + PEM).encode()) == set(FILES)


def test_a_certificate_of_somebody_else_does_not_hide_the_others_in_der():
    other = x509.load_pem_x509_certificate(IntelHardware(1_750_000_000).root_pem.encode())
    assert values_of(other.public_bytes(serialization.Encoding.DER) + DER) == set(FILES)


@given(st.binary(max_size=200), st.integers(0, len(DER)))
def test_whatever_stands_there_there_is_an_end(data, position):
    for candidate in (data, DER[:position] + data, b"0\x82" + data, b"-----BEGIN " + data, b'{"a":"' + data):
        values_of(candidate)
        assert len(read_signed(candidate)) <= MAX_IN_FILE


class TestCommands:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("EDGECLAVE_ENDORSEMENTS", raising=False)
        return tmp_path

    def test_a_real_report_with_its_chain_in_one_der(self, folder):
        chain = x509.load_pem_x509_certificates(real_vector("amd/trustee/milan_ask_ark_asvk.pem"))
        chain_der = b"".join(each.public_bytes(serialization.Encoding.DER) for each in chain)
        (folder / "chain").write_bytes((real_vector("amd/trustee/test-vcek.der") + chain_der).hex().encode())
        report = str(FOLDER / "amd/trustee/test-report.bin")
        assert run(["verify", report, "--endorsements", "chain", "--at", "2025-06-01"]) == 0
        assert run(["endorsements", "import", "chain"]) == 0
        assert run(["verify", report, "--at", "2025-06-01"]) == 0

    def test_a_folder_of_folders(self, folder):
        real_vector("amd/report_milan.hex")
        arguments = ["--endorsements", str(FOLDER / "amd"), "--at", "2025-06-01"]
        assert run(["verify", str(FOLDER / "amd/report_milan.hex"), *arguments]) == 0

    def test_the_folder_of_another_can_be_imported(self, folder, capsys):
        (folder / "chain.der").write_bytes(DER)
        assert run(["endorsements", "import", "chain.der", "--folder", "theirs"]) == 0
        capsys.readouterr()
        assert run(["endorsements", "import", "theirs", "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)) == len(FILES)

    @pytest.mark.parametrize("command", [["endorsements", "import"], ["verify", "nothing", "--endorsements"]])
    def test_too_large_a_file(self, folder, capsys, command):
        (folder / "huge").write_bytes(bytes(1 << 20))
        (folder / "nothing").write_bytes(b"x")
        assert run([*command, "huge"]) != 0
        error = capsys.readouterr().err
        assert "[too-large]" in error
        assert "where: huge" in error

    def test_too_large_a_file_in_a_folder_is_left_out(self, folder, capsys):
        (folder / "files").mkdir()
        (folder / "files/huge").write_bytes(bytes(1 << 20))
        (folder / "files/chain").write_bytes(DER)
        assert run(["endorsements", "import", "files"]) == 0
        assert "left out, not an endorsement: files/huge" in capsys.readouterr().err
