"""Quotes as other tools write them: taken out of what is around them, and then verified like any other."""

from __future__ import annotations

import base64
import json
import struct
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeclave.cli.main import run
from edgeclave.errors import EvidenceError
from edgeclave.evidence.kinds import detect
from edgeclave.evidence.wrapped_files import MAX_LAYERS, MAX_WRAPPED_BYTES, contents
from tests.fixtures.intel_hardware import IntelHardware
from tests.fixtures.real_vectors import FOLDER, real_vector

AT = "1752919000"


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def pem(data, label="SGX QUOTE"):
    lines = base64.encodebytes(data).decode()
    return f"-----BEGIN {label}-----\n{lines}-----END {label}-----\n".encode()


def open_enclave(data, *, version=1, kind=2, size=None):
    return struct.pack("<IIQ", version, kind, len(data) if size is None else size) + data


WRAPPED = {
    "hex": lambda quote: quote.hex().encode(),
    "hex in lines": lambda quote: "\n".join(quote.hex()[i : i + 64] for i in range(0, 2 * len(quote), 64)).encode(),
    "hex in lines that end inside a pair": lambda quote: "\r\n".join(
        quote.hex()[i : i + 63] for i in range(0, 2 * len(quote), 63)
    ).encode(),
    "hex behind 0x": lambda quote: b"0x" + quote.hex().encode() + b"\n",
    "hex in UTF-16": lambda quote: quote.hex().encode("utf-16"),
    "hex behind a byte order mark": lambda quote: b"\xef\xbb\xbf" + quote.hex().encode(),
    "base64": base64.b64encode,
    "base64 in lines": base64.encodebytes,
    "base64url without padding": base64url,
    "PEM": pem,
    "Open Enclave": open_enclave,
    "request to MAA": lambda quote: json.dumps(
        {"quote": base64url(quote).decode(), "runtimeData": {"data": "AAAA", "dataType": "Binary"}}
    ).encode(),
    "request to MAA for Open Enclave": lambda quote: json.dumps(
        {"report": base64url(open_enclave(quote)).decode()}
    ).encode(),
    "answer of a quoting service": lambda quote: json.dumps({"quote": quote.hex()}).encode(),
    "JSON in base64": lambda quote: base64.b64encode(json.dumps({"quote": quote.hex()}).encode()),
}


def innermost(data):
    return list(contents(data))[-1].data


class TestRealQuotes:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("EDGECLAVE_ENDORSEMENTS", raising=False)

    @pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
    @pytest.mark.parametrize("tee", ["sgx", "tdx"])
    def test_accepted_in_whatever_is_around_them(self, tmp_path, capsys, tee, wrap):
        (tmp_path / "file").write_bytes(wrap(real_vector(f"intel/{tee}_quote")))
        collateral = str(FOLDER / f"intel/{tee}_quote_collateral.json")
        assert run(["verify", "file", "--endorsements", collateral, "--at", AT]) == 0
        assert f"raw Intel {tee.upper()} evidence, in " in capsys.readouterr().out

    def test_in_the_fixed_buffer_of_a_driver(self, tmp_path):
        (tmp_path / "file").write_bytes(real_vector("intel/tdx_quote").ljust(8 << 10, b"\0"))
        collateral = str(FOLDER / "intel/tdx_quote_collateral.json")
        assert run(["verify", "file", "--endorsements", collateral, "--at", AT]) == 0
        (tmp_path / "file").write_bytes(real_vector("intel/tdx_quote").ljust(8 << 10, b"\0") + b"x")
        assert run(["verify", "file", "--endorsements", collateral, "--at", AT]) == 1

    def test_the_snp_report_of_a_request_to_maa(self, tmp_path):
        report = real_vector("amd/trustee/test-report.bin")
        inner = json.dumps({"SnpReport": base64url(report).decode(), "VcekCertChain": ""}).encode()
        (tmp_path / "file").write_bytes(json.dumps({"report": base64url(inner).decode()}).encode())
        assert run(["verify", "file", "--endorsements", str(FOLDER / "amd/trustee"), "--at", "2025-06-01"]) == 0

    def test_an_open_enclave_report_from_its_own_tests(self, capsys):
        """SOURCES.md: broken. It is read as what it is, and refused."""
        path = FOLDER / "intel/sgx_report_bad.bin"
        real_vector("intel/sgx_report_bad.bin")
        assert run(["verify", str(path), "--json"]) == 1
        report = json.loads(capsys.readouterr().out)
        assert report["what"] == "raw Intel SGX evidence, in Open Enclave report"

    def test_one_changed_bit_inside_is_refused(self, tmp_path):
        quote = bytearray(real_vector("intel/sgx_quote"))
        quote[100] ^= 1
        (tmp_path / "file").write_bytes(base64.b64encode(open_enclave(bytes(quote))))
        collateral = str(FOLDER / "intel/sgx_quote_collateral.json")
        assert run(["verify", "file", "--endorsements", collateral, "--at", AT]) == 1


class TestOpenEnclaveHeader:
    QUOTE = IntelHardware(1_750_000_000).sgx_quote()

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            pytest.param(open_enclave(QUOTE)[:-1], "malformed-quote", id="cut off"),
            pytest.param(open_enclave(QUOTE) + b"\0", "malformed-quote", id="a byte behind it"),
            pytest.param(open_enclave(QUOTE, size=0), "malformed-quote", id="no size"),
            pytest.param(open_enclave(QUOTE, kind=1), "local-report", id="a local report"),
        ],
    )
    def test_refused(self, tmp_path, monkeypatch, capsys, data, code):
        with pytest.raises(EvidenceError, match=code):
            list(contents(data))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "file").write_bytes(data)
        assert run(["verify", "file", "--json"]) == 1
        (check,) = json.loads(capsys.readouterr().out)["checks"]
        assert check["code"] == code

    @pytest.mark.parametrize("changes", [{"version": 2}, {"kind": 3}, {"kind": 0}, {"size": 1 << 32}])
    def test_not_such_a_header(self, changes):
        assert innermost(open_enclave(self.QUOTE, **changes)) == open_enclave(self.QUOTE, **changes)


class TestNotWrapped:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{}",
            b"[]",
            b'{"quote": 1}',
            b'{"quote": "*"}',
            b'{"quote": ""}',
            b"{" * 1000,
            b"abc*",
            b"=",
            b"A",
            b"0",
        ],
    )
    def test_stays_what_it_is(self, data):
        assert innermost(data) == data

    def test_a_certificate_is_no_quote(self):
        certificate = IntelHardware(1_750_000_000).root_pem.encode()
        assert [each.how for each in contents(certificate)] == [""]

    def test_layers_have_an_end(self):
        data = TestOpenEnclaveHeader.QUOTE
        for _ in range(MAX_LAYERS + 1):
            data = base64.b64encode(data)
        assert len(list(contents(data))) == MAX_LAYERS + 1
        assert all(detect(each.data) is None for each in contents(data))

    def test_sizes_have_an_end(self):
        assert len(list(contents(b"0" * (MAX_WRAPPED_BYTES + 2)))) == 1


@given(st.binary(max_size=200), st.lists(st.sampled_from(sorted(WRAPPED)), max_size=4))
@example(b'{"quote": "\xff"}', [])
@example(b"A B", [])
def test_whatever_is_inside_there_is_an_end(data, layers):
    for layer in layers:
        data = WRAPPED[layer](data)
    found = []
    with suppress(EvidenceError):
        for content in contents(data):
            found.append(content)
    assert 1 <= len(found) <= MAX_LAYERS + 1
