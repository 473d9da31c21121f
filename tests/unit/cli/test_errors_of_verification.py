"""Whatever is wrong with a command line or its files: the error says what, where and what to do, and is no defect."""

from __future__ import annotations

import json
import shutil

import pytest

from edgeclave.cli.main import run
from tests.fixtures.amd_hardware import AmdHardware
from tests.fixtures.intel_hardware import IntelHardware

HEX = "ab" * 32
INIT = ["policy", "init", "--product-id", "1", "--signer"]
SGX = [*INIT, HEX, "--class", "sgx"]
GOOD = [*SGX, "--runtime", f"mrenclave={HEX}"]
EMULATED = [*INIT, HEX, "--class", "emulated"]
SERVE = ["verifier", "serve", "--policy", "ok.toml"]
FETCH = ["endorsements", "fetch"]
TIMESTAMP = ["archive", "timestamp", "archive", "--authority", "https://127.0.0.1:1", "--timestamp-ca"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("EDGECLAVE_ENDORSEMENTS", "EDGECLAVE_VERIFIER_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk").write_text("junk\n")
    (tmp_path / "ok.toml").write_text("classes = []\nanchors = []\nruntime = {}\ntrusted_apps = []\n")
    (tmp_path / "bad.toml").write_text(
        'classes = []\nanchors = []\ntrusted_apps = []\n[[runtime.sgx]]\nmrenclave = "12"\n'
    )
    (tmp_path / "jwks.json").write_text('{"keys": []}')
    (tmp_path / "token").write_text("eyJhbGciOiJSUzI1NiJ9.e30.AA")
    (tmp_path / "record").write_text('{"format":"edgeclave-archive/1"}')
    (tmp_path / "quote").write_bytes(IntelHardware(1_750_000_000).sgx_quote())
    (tmp_path / "root.pem").write_text(IntelHardware(1_750_000_000).root_pem)
    (tmp_path / "chain.der").write_bytes(AmdHardware().root)
    (tmp_path / "archive/results").mkdir(parents=True)
    (tmp_path / "archive/timestamps/list.sha256").mkdir(parents=True)
    (tmp_path / "archive/timestamps/gone.sha256").symlink_to("nowhere")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "where"),
    [
        (["verify", "nothing"], "no-such-file", "nothing"),
        (["verify", "."], "no-such-file", "."),
        (["verify", "junk"], "not-readable", "junk"),
        (["verify", "junk", "--policy", "nothing"], "no-such-file", "nothing"),
        (["verify", "junk", "--policy", "bad.toml"], "bad-policy", "bad.toml: runtime.sgx.mrenclave"),
        (["verify", "junk", "--nonce", "00"], "bad-nonce", "--nonce"),
        (["verify", "junk", "--nonce", "xy"], "bad-nonce", "--nonce"),
        (["verify", "junk", "--at", "soon"], "bad-time", "--at"),
        (["verify", "junk", "--endorsements", "nothing"], "no-such-file", "nothing"),
        (["verify", "junk", "--endorsements", "junk"], "no-endorsement", "junk"),
        (["verify", "token"], "needs-issuer", "--issuer"),
        (["verify", "token", "--jwks", "jwks.json"], "needs-issuer", "--issuer"),
        (["verify", "token", "--issuer", "x", "--jwks", "nothing"], "no-such-file", "nothing"),
        (["verify", "token", "--issuer", "x", "--jwks", "junk"], "bad-jwks", "--jwks junk"),
        (["verify", "token", "--issuer", "x", "--jwks", "jwks.json"], "bad-jwks", "--jwks jwks.json"),
        (["verify", "record"], "not-readable", "record"),
        (["policy", "explain", "junk", "--policy", "ok.toml"], "not-readable", "junk"),
        ([*INIT, "00", "--class", "sgx"], "bad-signer", "--signer"),
        ([*INIT, HEX, "--class", "best"], "unknown-class", "--class best"),
        ([*SGX, "--kind", "tdx"], "unknown-class", "--class sgx --kind tdx"),
        (SGX, "no-runtime", "--runtime"),
        ([*SGX, "--runtime", "mrenclave"], "bad-runtime", "--runtime mrenclave"),
        ([*SGX, "--runtime", "mrenclave=12"], "bad-policy", "runtime.sgx.mrenclave"),
        ([*GOOD, "--freshness", "none"], "bad-freshness", "--freshness"),
        ([*GOOD, "--out", "nowhere/policy.toml"], "cannot-write", "nowhere/policy.toml"),
        ([*GOOD, "--out", "ok.toml"], "file-exists", "ok.toml"),
        (EMULATED, "no-anchor", "--anchor"),
        ([*EMULATED, "--anchor", "nothing"], "bad-policy", "--anchor nothing"),
        ([*EMULATED, "--anchor", "junk"], "bad-policy", "--anchor junk"),
        (["endorsements", "import", "junk"], "no-endorsement", "junk"),
        (["endorsements", "import", "chain.der", "--folder", "junk"], "cannot-write", "junk/"),
        (FETCH, "nothing-wanted", "edgeclave endorsements fetch"),
        ([*FETCH, "junk"], "not-evidence", "junk"),
        ([*FETCH, "--sgx-fmspc", "zz"], "bad-fmspc", "--sgx-fmspc"),
        ([*FETCH, "--tdx-fmspc", "zz"], "bad-fmspc", "--tdx-fmspc"),
        ([*FETCH, "--amd-product", "Rome"], "unknown-product", "--amd-product"),
        ([*FETCH, "quote", "--ca", "nothing"], "no-such-file", "--ca nothing"),
        ([*FETCH, "quote", "--ca", "junk"], "no-such-file", "--ca junk"),
        ([*FETCH, "quote", "--from", "ftp://host"], "bad-url", "ftp://host"),
        ([*TIMESTAMP, "nothing"], "no-such-file", "--timestamp-ca nothing"),
        ([*TIMESTAMP, "junk"], "no-such-file", "--timestamp-ca junk"),
        ([*TIMESTAMP, "root.pem", "--ca", "nothing"], "no-such-file", "--ca nothing"),
        (["verifier", "new-key", "a/b"], "bad-key-name", "a/b"),
        (["verifier", "new-key", "a", "--keys", "junk"], "cannot-write", "junk"),
        (["verifier", "new-key", "a", "--from", "soon"], "bad-time", "--from"),
        (["verifier", "jwks"], "no-signing-key", ".edgeclave/verifier"),
        ([*SERVE, "--host", "0.0.0.0"], "needs-tls", "--host 0.0.0.0"),
        ([*SERVE, "--tls-key", "junk"], "bad-tls", "--tls-certificate"),
        ([*SERVE, "--tls-key", "junk", "--tls-certificate", "junk"], "bad-tls", "junk"),
        ([*SERVE, "--endorsements", "nothing"], "no-such-file", "nothing"),
    ],
)
def test_it_says_what_is_wrong_where_and_what_to_do(folder, capsys, arguments, code, where):
    assert run(arguments) in (1, 2)
    error = capsys.readouterr().err
    assert f"error [{code}]: " in error
    assert f"\n  where: {where}" in error
    assert "\n  do:    " in error
    assert not (folder / "policy.toml").exists()


def test_a_key_folder_without_its_secret(folder, capsys):
    assert run(["verifier", "new-key", "one"]) == 0
    (folder / ".edgeclave/verifier/nonce.secret").unlink()
    assert run([*SERVE]) == 1
    error = capsys.readouterr().err
    assert "where: .edgeclave/verifier/nonce.secret" in error
    assert run(["verifier", "new-key", "two"]) == 0  # what it says to do
    assert run(["verifier", "jwks"]) == 0


def test_an_issuer_with_a_slash(folder, capsys):
    assert run(["verifier", "new-key", "one"]) == 0
    assert run([*SERVE, "--issuer", "https://host/"]) == 1
    assert "where: --issuer https://host/" in capsys.readouterr().err


def test_where_is_told_of_a_refusal_too(folder, capsys):
    shutil.rmtree(folder / "archive")
    (folder / "collateral.json").write_bytes(IntelHardware(1_750_000_000).collateral("sgx"))
    arguments = ["verify", "quote", "--endorsements", "collateral.json", "--at", "1750000000"]
    assert run([*arguments, "--json"]) == 1
    (refused,) = [each for each in json.loads(capsys.readouterr().out)["checks"] if each["verdict"] == "failed"]
    assert refused["code"] == "untrusted-anchor"
    assert refused["where"].startswith("root ")
    assert run(arguments) == 1
    assert f"where: {refused['where']}" in capsys.readouterr().out
