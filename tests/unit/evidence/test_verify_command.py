"""`edgeclave verify`, `policy explain` and `endorsements`, run as a person or a script would."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from edgeclave.cli.main import run
from edgeclave.evidence.collection import evidence_digest
from edgeclave.evidence.policy_file import load_policy
from edgeclave.keys import create_key, public_pem
from edgeclave.results.recipients import sign_recipient_set, verify_recipient_set
from edgeclave.results.sealed import NO_INPUTS, ResultHeader, seal
from tests.fixtures.benches import RUNTIME, EmulatorBench, IntelBench
from tests.fixtures.evidence_bench import IDENTITY, NONCE, NOW, Instance

VECTORS = Path(__file__).parents[4] / "shared" / "vectors" / "intel"
REAL_TIME = "1752919000"
TRUSTED_APP = f'[[trusted_apps]]\nsigner_id = "{IDENTITY.signer_id.hex()}"\nproduct_id = 7\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGECLAVE_ENDORSEMENTS", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def sgx():
    return IntelBench("sgx", 3)


def vector(name):
    assert (VECTORS / name).exists(), f"{VECTORS / name} is missing"
    return str(VECTORS / name)


def verify_json(capsys, *arguments):
    code = run(["verify", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def checks(report):
    return {check["point"]: check["verdict"] for check in report["checks"]}


def stand_in(folder, bench, *, freshness="nonce", runtime=RUNTIME, more=""):
    """Evidence, collateral and policy of stand-in hardware, as files."""
    instance = Instance(bench)
    (folder / "evidence.cbor").write_bytes(instance.evidence())
    (folder / "quote.bin").write_bytes(bench.quote(NONCE.ljust(64, b"\0")))
    (folder / "collateral.json").write_bytes(bench.hardware.collateral("sgx"))
    (folder / "root.pem").write_text(bench.hardware.root_pem)
    (folder / "policy.toml").write_text(
        f'classes = ["emulated"]\nfreshness = "{freshness}"\n{more}\n'
        '[[anchors]]\nkind = "sgx"\nclass = "emulated"\ntest_root = "root.pem"\n'
        f'[[runtime.sgx]]\nmrenclave = "{runtime.hex()}"\n{TRUSTED_APP}'
    )
    return instance


EVIDENCE = ["evidence.cbor", "--policy", "policy.toml", "--endorsements", "collateral.json", "--at", str(NOW)]


class TestRawQuotes:
    def test_a_real_sgx_quote_is_described(self, folder, capsys):
        arguments = [vector("sgx_quote"), "--endorsements", vector("sgx_quote_collateral.json"), "--now", REAL_TIME]
        code, report = verify_json(capsys, *arguments)
        assert code == 0
        assert report["verdict"] == "accepted"
        assert report["policy"] is False
        assert report["platform"]["root"] == "intel-sgx-root"
        assert report["platform"]["tcb"]["status"] == "ConfigurationAndSWHardeningNeeded"
        assert checks(report)["runtime"] == "not judged"
        assert run(["verify", *arguments]) == 0
        assert "only signatures and TCB were judged" in capsys.readouterr().out

    def test_a_real_tdx_quote_with_imported_collateral(self, folder, capsys):
        assert run(["endorsements", "import", vector("tdx_quote_collateral.json")]) == 0
        capsys.readouterr()
        code, report = verify_json(capsys, vector("tdx_quote"), "--at", "2025-07-19T09:56:40Z")
        assert (code, report["platform"]["kind"], report["platform"]["tcb"]["status"]) == (0, "tdx", "UpToDate")

    @pytest.mark.parametrize(
        ("name", "at"),
        [
            pytest.param("tdx_quote_outdated", "1771500000", id="below every TCB level"),
            pytest.param("sgx_quote", "1700000000", id="before its collateral"),
            pytest.param("sgx_quote", "1760000000", id="after its collateral"),
        ],
    )
    def test_real_quotes_that_are_refused(self, folder, capsys, name, at):
        code, report = verify_json(
            capsys, vector(name), "--endorsements", vector(f"{name}_collateral.json"), "--at", at
        )
        assert (code, report["verdict"]) == (1, "refused")

    def test_an_out_of_date_platform_is_refused_without_a_policy(self, folder, capsys, sgx, monkeypatch):
        """Only the status decides; stand-in hardware needs a policy, so its root is taken for the vendor's here."""
        from edgeclave.evidence import intel
        from edgeclave.evidence.anchors import key_fingerprint

        stand_in(folder, sgx)
        monkeypatch.setitem(intel.ROOTS, "intel-sgx-root", key_fingerprint(sgx.hardware.root.public_key()))
        for status, expected in (("SWHardeningNeeded", 0), ("OutOfDate", 1)):
            (folder / "collateral.json").write_bytes(sgx.hardware.collateral("sgx", status=status))
            arguments = ["quote.bin", "--endorsements", "collateral.json", "--at", str(NOW)]
            assert verify_json(capsys, *arguments)[0] == expected

    def test_stand_in_hardware_is_refused_without_a_policy(self, folder, capsys, sgx):
        stand_in(folder, sgx)
        code, report = verify_json(capsys, "quote.bin", "--endorsements", "collateral.json", "--at", str(NOW))
        assert code == 1
        assert report["checks"][0]["code"] == "untrusted-anchor"

    def test_a_nonce_must_be_the_report_data(self, folder, capsys, sgx):
        stand_in(folder, sgx)
        arguments = ["quote.bin", *EVIDENCE[1:], "--nonce"]
        assert verify_json(capsys, *arguments, NONCE.hex())[0] == 0
        code, report = verify_json(capsys, *arguments, "00" * 16)
        assert (code, checks(report)["report-data"]) == (1, "failed")


class TestEvidence:
    def test_good_evidence(self, folder, capsys, sgx):
        stand_in(folder, sgx)
        code, report = verify_json(capsys, *EVIDENCE, "--nonce", NONCE.hex())
        assert code == 0
        assert set(checks(report).values()) == {"passed"}
        assert report["platform"]["test"] is True
        assert report["platform"]["class"] == "emulated"
        assert report["claims"]["unique_id"] == IDENTITY.unique_id.hex()

    def test_it_says_that_it_is_a_test(self, folder, capsys, sgx):
        stand_in(folder, sgx)
        assert run(["verify", *EVIDENCE, "--nonce", NONCE.hex()]) == 0
        assert "TEST root" in capsys.readouterr().out

    def test_without_a_policy_a_test_root_is_nobody(self, folder, capsys, sgx):
        stand_in(folder, sgx)
        code, report = verify_json(capsys, "evidence.cbor", "--endorsements", "collateral.json", "--at", str(NOW))
        assert (code, checks(report)["platform"]) == (1, "failed")

    def test_every_point_is_told_not_only_the_first(self, folder, capsys, sgx):
        stand_in(folder, sgx, runtime=b"x" * 32)
        code = run(["policy", "explain", *EVIDENCE, "--nonce", "00" * 16, "--json"])
        report = json.loads(capsys.readouterr().out)
        failed = {check["point"]: check["code"] for check in report["checks"] if check["verdict"] == "failed"}
        assert code == 1
        assert failed == {"runtime": "wrong-runtime", "freshness": "wrong-nonce"}
        assert checks(report)["trusted-app"] == "passed"
        assert all(check["advice"] for check in report["checks"] if check["verdict"] == "failed")

    def test_explain_passes_what_passes(self, folder, capsys, sgx):
        stand_in(folder, sgx)
        assert run(["policy", "explain", *EVIDENCE, "--nonce", NONCE.hex()]) == 0
        assert "accepted" in capsys.readouterr().out


class TestSealedResult:
    @pytest.fixture
    def sealed(self, folder):
        bench = EmulatorBench()
        instance = Instance(bench)
        evidence = instance.evidence()
        authority, reader = create_key(folder, "authority"), create_key(folder, "reader")
        message = sign_recipient_set("out", 1, [reader.public_key()], authority)
        recipients = verify_recipient_set(message, authority.public_key())
        header = ResultHeader(
            unique_id=IDENTITY.unique_id,
            signer_id=IDENTITY.signer_id,
            product_id=7,
            security_version=3,
            output="out",
            epoch=1,
            sequence=1,
            previous=bytes(32),
            evidence_digest=evidence_digest(evidence),
            recipients=(recipients.version, recipients.digest),
            beacon=None,
            calls=1,
            inputs=NO_INPUTS,
            assurance="none",
            host_time=1,
        )
        (folder / "evidence.cbor").write_bytes(evidence)
        (folder / "result.cose").write_bytes(seal(header, b"payload", instance.signing_key, recipients))
        (folder / "other.cose").write_bytes(seal(header, b"payload", Instance(bench).signing_key, recipients))
        (folder / "emulator.pub.pem").write_bytes(public_pem(bench.key.public_key()))
        (folder / "policy.toml").write_text(
            'classes = ["emulated"]\nfreshness = "unknown"\n'
            '[[anchors]]\nkind = "emulator"\nclass = "emulated"\npublic_key = "emulator.pub.pem"\n'
            f'[runtime]\nemulator = ["{RUNTIME.hex()}"]\n{TRUSTED_APP}'
        )
        return ["--policy", "policy.toml", "--evidence", "evidence.cbor"]

    def test_it_is_verified_with_its_evidence(self, sealed, capsys):
        code, report = verify_json(capsys, "result.cose", *sealed)
        assert (code, checks(report)["result"]) == (0, "passed")

    def test_one_by_another_instance_is_refused(self, sealed, capsys):
        code, report = verify_json(capsys, "other.cose", *sealed)
        assert (code, checks(report)["result"]) == (1, "failed")

    def test_alone_it_proves_nothing(self, sealed, capsys):
        assert run(["verify", "result.cose", *sealed[:2]]) == 2
        assert "needs-evidence" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["nothing.bin"], "no-such-file", id="no file"),
        pytest.param(["junk.bin"], "not-readable", id="junk"),
        pytest.param(["junk.bin", "--policy", "junk.bin"], "bad-policy", id="a policy that is none"),
        pytest.param(["junk.bin", "--nonce", "xyz"], "bad-nonce", id="a nonce not in hex"),
        pytest.param(["junk.bin", "--at", "soon"], "bad-time", id="no time"),
        pytest.param(["junk.bin", "--at", "253402300800"], "bad-time", id="a time after the year 9999"),
        pytest.param(["junk.bin", "--at", "9" * 20], "bad-time", id="a time that no clock can show"),
        pytest.param(["junk.bin", "--at", "0001-01-01T00:00:00+14:00"], "bad-time", id="a time before the year 1"),
        pytest.param(["junk.bin", "--policy", "/dev/zero"], "bad-policy", id="a policy without end"),
        pytest.param(["/dev/null"], "empty\n  where: /dev/null", id="an empty file"),
        pytest.param(["split.hex"], "not-readable", id="white space inside a pair of hex digits"),
        pytest.param(["junk.bin", "--endorsements", "junk.bin"], "no-endorsement", id="no endorsement"),
        pytest.param(["huge.bin"], "too-large", id="too large a file"),
    ],
)
def test_what_cannot_be_read_exits_with_2(folder, capsys, arguments, said):
    (folder / "junk.bin").write_bytes(b"junk")
    (folder / "split.hex").write_bytes(b"A B")
    (folder / "huge.bin").write_bytes(bytes(3 << 20))
    assert run(["verify", *arguments]) == 2
    assert said in capsys.readouterr().err


class TestEndorsementsFolder:
    def test_import_and_show(self, folder, capsys):
        assert run(["endorsements", "import", str(VECTORS), "--json"]) == 0
        said = capsys.readouterr()
        assert {row["subject"] for row in json.loads(said.out)} == {
            "sgx-00a067110000-processor",
            "tdx-b0c06f000000-platform",
            "tdx-90c06f000000-platform",
        }
        assert "left out, not an endorsement" in said.err
        assert run(["endorsements", "show", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert len(rows) == 3
        assert all(row["not_before"] < row["not_after"] and row["state"] for row in rows)

    def test_importing_again_changes_nothing(self, folder, capsys):
        for _ in range(2):
            assert run(["endorsements", "import", vector("sgx_quote_collateral.json")]) == 0
        assert sum(len(files) for _, _, files in os.walk(folder / ".edgeclave/endorsements")) == 1

    def test_a_stored_file_that_was_changed_is_not_used(self, folder, capsys):
        run(["endorsements", "import", vector("sgx_quote_collateral.json")])
        (stored,) = [path for path in (folder / ".edgeclave/endorsements").rglob("*") if path.is_file()]
        stored.write_bytes(stored.read_bytes() + b" ")
        capsys.readouterr()
        code, report = verify_json(capsys, vector("sgx_quote"), "--at", REAL_TIME)
        assert (code, report["checks"][0]["code"]) == (1, "no-endorsement")

    def test_what_holds_none(self, folder, capsys):
        (folder / "junk.bin").write_bytes(b"{}")
        assert run(["endorsements", "import", "junk.bin"]) == 1
        assert "no-endorsement" in capsys.readouterr().err


SIGNED = ["--signer", "ab" * 32, "--product-id", "1"]


class TestPolicyInit:
    def test_for_sgx(self, folder, capsys):
        assert run(["policy", "init", "--class", "sgx", "--runtime", f"mrenclave={'cd' * 32}", *SIGNED]) == 0
        policy = load_policy(folder / "policy.toml")
        assert policy.anchors[0].name == "intel-sgx-root"
        assert policy.runtime["sgx"].differences({"mrenclave": b"\xcd" * 32}) == []

    def test_for_tdx_by_signer_of_nothing(self, folder, capsys):
        assert run(["policy", "init", "--class", "tdx", "--runtime", f"mrtd={'cd' * 48}", *SIGNED]) == 1
        assert "must name all of (mrtd, rtmr0, rtmr1, rtmr2, rtmr3)" in capsys.readouterr().err
        assert not (folder / "policy.toml").exists()

    def test_for_a_tpm_whose_key_is_rsa(self, folder):
        key = rsa.generate_private_key(65537, 2048).public_key()
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / "key.pem").write_bytes(pem)
        tpm = ["--class", "boot-attested", "--runtime", f"pcr4={'cd' * 32}", "--anchor", "key.pem"]
        assert run(["policy", "init", *tpm, *SIGNED]) == 0
        assert load_policy(folder / "policy.toml").anchors[0].key == key

    def test_any_name_of_a_device_stays_in_its_line(self, folder):
        device = 'plant.1"] = 5\n[x'
        sgx = ["--class", "sgx", "--runtime", f"mrenclave={'cd' * 32}"]
        assert run(["policy", "init", *sgx, *SIGNED, "--device", device]) == 0
        policy = folder / "policy.toml"
        policy.write_text(policy.read_text().replace('# "plant', '"plant').replace("HEX", "ab" * 16))
        assert load_policy(policy).devices == {b"\xab" * 16: device}
