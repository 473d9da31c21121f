"""What `verify` and `policy explain` are given: standard input, parts of evidence, options that do not fit."""

from __future__ import annotations

import base64
import io
import json
from types import SimpleNamespace

import pytest

from edgeclave import cose
from edgeclave.cli.main import run
from edgeclave.cli.verify_inputs import MAX_FILE_BYTES
from edgeclave.keys import create_key
from edgeclave.results.sealed import RESULT
from tests.fixtures.amd_benches import AzureBench
from tests.fixtures.azure_hardware import AzureHardware
from tests.fixtures.benches import RUNTIME, IntelBench
from tests.fixtures.evidence_bench import IDENTITY, NONCE, NOW, Instance
from tests.fixtures.intel_hardware import IntelHardware
from tests.fixtures.real_vectors import FOLDER, real_vector
from tests.fixtures.tpm_hardware import BOOTED, TpmHardware


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGECLAVE_ENDORSEMENTS", raising=False)
    return tmp_path


def given(monkeypatch, data):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))


class TestStandardInput:
    def test_a_quote(self, monkeypatch, capsys):
        given(monkeypatch, real_vector("intel/sgx_quote"))
        collateral = str(FOLDER / "intel/sgx_quote_collateral.json")
        assert run(["verify", "-", "--endorsements", collateral, "--at", "1752919000"]) == 0
        assert "raw Intel SGX evidence" in capsys.readouterr().out

    def test_explained(self, monkeypatch, folder, capsys):
        bench = IntelBench("sgx", 3)
        (folder / "root.pem").write_text(bench.hardware.root_pem)
        (folder / "collateral.json").write_bytes(bench.hardware.collateral("sgx"))
        (folder / "policy.toml").write_text(
            'classes = ["emulated"]\n[[anchors]]\nkind = "sgx"\nclass = "emulated"\ntest_root = "root.pem"\n'
            f'[[runtime.sgx]]\nmrenclave = "{RUNTIME.hex()}"\n'
            f'[[trusted_apps]]\nsigner_id = "{IDENTITY.signer_id.hex()}"\nproduct_id = 7\n'
        )
        arguments = ["--policy", "policy.toml", "--endorsements", "collateral.json", "--at", str(NOW)]
        given(monkeypatch, Instance(bench).evidence())
        assert run(["policy", "explain", "-", *arguments, "--nonce", NONCE.hex()]) == 0

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            pytest.param(bytes(MAX_FILE_BYTES + 1), "too-large", id="too much"),
            pytest.param(b"", "not-readable", id="nothing"),
            pytest.param(b'{"format":"edgeclave-archive/1"}', "not-readable", id="a result without its archive"),
        ],
    )
    def test_refused(self, monkeypatch, capsys, data, code):
        given(monkeypatch, data)
        assert run(["verify", "-"]) == 2
        error = capsys.readouterr().err
        assert f"[{code}]" in error
        assert "where: standard input" in error

    def test_closed(self, monkeypatch, capsys):
        monkeypatch.setattr("sys.stdin", None)
        assert run(["verify", "-"]) == 2
        assert "where: standard input" in capsys.readouterr().err


FILES = {
    "a quote": IntelHardware(1_750_000_000).sgx_quote(),
    "a token": b"eyJhbGciOiJub25lIn0.e30.",
    "a result of an archive": b'{"format":"edgeclave-archive/1"}',
}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """As far as a glance can tell, which is all that is needed here."""
    return cose.sign(RESULT, b"payload", create_key(tmp_path_factory.mktemp("key"), "key"))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("a quote", ["--evidence", "--issuer", "--jwks", "--timestamp-ca"]),
        ("a sealed result", ["--issuer", "--jwks", "--timestamp-ca"]),
        ("a token", ["--evidence", "--endorsements", "--timestamp-ca"]),
        ("a result of an archive", ["--evidence", "--nonce"]),
    ],
)
def test_an_option_that_cannot_apply_is_refused(folder, capsys, result, kind, options):
    (folder / "file").write_bytes(FILES.get(kind, result))
    (folder / "policy.toml").write_text("classes = []\nanchors = []\nruntime = {}\ntrusted_apps = []\n")
    for option in options:
        assert run(["verify", "file", "--policy", "policy.toml", option, "00" * 16]) == 2
        error = capsys.readouterr().err
        assert "[does-not-apply]" in error
        assert f"where: {option}" in error
        assert "do:    leave it out" in error


class TestPartsOfEvidence:
    def explain(self, capsys, name, *arguments):
        code = run(["verify", name, "--json", *arguments])
        report = json.loads(capsys.readouterr().out)
        return code, report, {each["point"]: each.get("code", each["verdict"]) for each in report["checks"]}

    def test_the_real_hcl_report(self, capsys):
        real_vector("azure-cvm/hcl-report.bin")
        known = ["--endorsements", str(FOLDER / "azure-cvm/vcek.pem"), "--at", "2025-06-01"]
        code, report, checks = self.explain(capsys, str(FOLDER / "azure-cvm/hcl-report.bin"), *known)
        assert (code, checks) == (1, {"platform": "passed", "quote": "incomplete-evidence"})
        assert report["what"].startswith("HCL report of an Azure confidential VM")
        assert report["platform"]["root"] == "amd-milan-root"

    def test_in_base64_and_altered(self, folder, capsys):
        report = bytearray(real_vector("azure-cvm/hcl-report.bin"))
        report[100] ^= 1
        (folder / "file").write_bytes(base64.b64encode(report))
        known = ["--endorsements", str(FOLDER / "azure-cvm/vcek.pem"), "--at", "2025-06-01"]
        code, _, checks = self.explain(capsys, "file", *known)
        assert (code, checks) == (1, {"platform": "bad-quote-signature", "quote": "incomplete-evidence"})

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            pytest.param({}, "untrusted-anchor", id="of stand-in hardware"),
            pytest.param({"report_type": 3}, "malformed-quote", id="of nobody's kind"),
            pytest.param({"size": 5}, "malformed-quote", id="whose sizes are wrong"),
        ],
    )
    def test_refused(self, folder, capsys, changes, expected):
        bench = AzureBench()
        (folder / "hcl").write_bytes(bench.hardware.hcl_report(**changes))
        (folder / "certificates").write_bytes(b"".join(each.value for each in bench.endorsements()))
        code, _, checks = self.explain(capsys, "hcl", "--endorsements", "certificates", "--at", str(NOW))
        assert (code, checks["platform"]) == (1, expected)

    def test_evidence_whose_quote_was_taken_away(self, folder, capsys):
        evidence = json.loads(real_vector("azure-cvm/evidence-v1.json"))
        del evidence["tpm_quote"]
        (folder / "file").write_text(json.dumps(evidence))
        known = ["--endorsements", str(FOLDER / "amd/roots"), "--at", "2025-06-01"]
        code, _, checks = self.explain(capsys, "file", *known)
        assert (code, checks) == (1, {"platform": "passed", "quote": "incomplete-evidence"})

    @pytest.mark.parametrize("command", [["verify"], ["policy", "explain", "--policy", "policy.toml"]])
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("azure-cvm/quote.bin", "a TPM's quote alone"),
            ("azure-cvm/vcek.pem", "endorsements, not evidence: AMD ARK, AMD ASK or ASVK, AMD VCEK or VLEK"),
            ("intel/sgx_quote_collateral.json", "endorsements, not evidence: Intel collateral"),
        ],
    )
    def test_what_is_no_evidence_is_named(self, folder, capsys, command, name, said):
        real_vector(name)
        (folder / "policy.toml").write_text("classes = []\nanchors = []\nruntime = {}\ntrusted_apps = []\n")
        assert run([*command, str(FOLDER / name)]) != 0
        error = capsys.readouterr().err
        assert "[not-readable]" in error
        assert said in error

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            pytest.param(
                AzureHardware().hcl_report(report_type=4), "Azure confidential VM on Intel TDX", id="HCL, TDX"
            ),
            pytest.param(b'{"td_quote": [], "hcl_report": []}', "Azure confidential VM on Intel TDX", id="JSON, TDX"),
            pytest.param(b'{"message": "", "signature": "", "pcrs": []}', "a TPM's quote alone", id="JSON of a vTPM"),
            pytest.param(b'{"tcbInfo": {}, "signature": ""}', "a part of Intel's collateral", id="TCB information"),
            pytest.param(b'{"enclaveIdentity": {}}', "a part of Intel's collateral", id="QE identity"),
            pytest.param(b"\x81" + bytes(1023), "only its own machine can verify", id="TD report"),
            pytest.param(IntelHardware(1_750_000_000).root_pem.encode(), "certificates or revocation", id="a root"),
        ],
    )
    def test_what_it_is_instead(self, folder, capsys, data, said):
        (folder / "file").write_bytes(data)
        assert run(["verify", "file"]) == 2
        error = capsys.readouterr().err
        assert "[not-readable]" in error
        assert said in error

    def test_a_quote_of_a_tpm_alone(self, folder, capsys):
        (folder / "quote").write_bytes(TpmHardware().quoted(bytes(32), BOOTED).attest)
        assert run(["verify", "quote"]) == 2
        assert "a TPM's quote alone" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["a token", "a sealed result"])
def test_what_policy_explain_cannot_explain(folder, capsys, result, kind):
    (folder / "file").write_bytes(FILES.get(kind, result))
    (folder / "policy.toml").write_text("classes = []\nanchors = []\nruntime = {}\ntrusted_apps = []\n")
    assert run(["policy", "explain", "file", "--policy", "policy.toml"]) == 1
    error = capsys.readouterr().err
    assert f"{kind}, which is no evidence" in error
    assert "do:    use `edgeclave verify" in error
