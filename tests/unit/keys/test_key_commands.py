"""`edgeclave keys`, `recipients` and `policy`, run as a person would."""

import base64
import json

import pytest

from edgeclave.cli.main import run
from edgeclave.evidence.policy_file import load_policy
from edgeclave.keys import load_public_key
from edgeclave.results.recipients import verify_recipient_set

SIGNER = "ab" * 32


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGECLAVE_KEYS", str(tmp_path / "keys"))
    return tmp_path


def sign(*more):
    return run(
        ["recipients", "sign", "--output", "anomalies", "--version", "1", "--recipient", "reader", *more],
    )


def init(*more):
    return run(["policy", "init", "--signer", SIGNER, "--product-id", "1", *more])


def test_keys_are_made_and_listed_without_private_halves(capsys):
    assert run(["keys", "new", "reader"]) == 0
    assert run(["keys", "list", "--json"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown.splitlines()[-1])[0]["name"] == "reader"
    assert "PRIVATE" not in shown


def test_a_key_that_is_there_already(capsys):
    run(["keys", "new", "reader"])
    assert run(["keys", "new", "reader"]) == 1
    assert "already a key named reader" in capsys.readouterr().err


def test_a_recipient_set_is_printed_as_the_twin_takes_it(folder, capsys):
    run(["keys", "new", "reader"]), run(["keys", "new", "authority"])
    capsys.readouterr()
    assert sign("--authority", "authority") == 0
    encoded = capsys.readouterr().out.strip()
    message = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    signed = verify_recipient_set(message, load_public_key(folder / "keys/authority.pub.pem"))
    assert signed.keys == (load_public_key(folder / "keys/reader.pub.pem"),)


def test_or_written_to_the_environment_file(folder, capsys):
    run(["keys", "new", "reader"]), run(["keys", "new", "authority"])
    (folder / ".env").write_text("ANOMALY_RECIPIENTS=\n")
    assert sign("--authority", "authority", "--env", ".env", "--variable", "ANOMALY_RECIPIENTS", "--json") == 0
    described = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (folder / ".env").read_text() == f"ANOMALY_RECIPIENTS={described['set']}\n"


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--authority", "nobody"], "no key named nobody"), (["--authority", "reader", "--env", ".env"], "go together")],
    ids=["an unknown authority", "a file without variable"],
)
def test_a_recipient_set_that_cannot_be_signed(capsys, more, said):
    run(["keys", "new", "reader"])
    assert sign(*more) == 1
    assert said in capsys.readouterr().err


def test_a_policy_that_can_be_used_at_once(folder):
    run(["keys", "new", "attestation"])
    assert init("--anchor", "keys/attestation.pub.pem", "--class", "emulated", "--device", "edge01") == 0
    policy = load_policy(folder / "policy.toml")
    assert policy.anchors[0].device == "edge01"
    assert policy.anchors[0].key == load_public_key(folder / "keys/attestation.pub.pem")
    assert policy.trusted_apps[0].signer_id == b"\xab" * 32
    assert policy.freshness == "unknown"


def test_a_policy_is_never_replaced(folder, capsys):
    run(["keys", "new", "attestation"])
    (folder / "policy.toml").write_text("mine")
    assert init("--anchor", "keys/attestation.pub.pem", "--class", "emulated") == 1
    assert (folder / "policy.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--class", "optee-device"], "verifies no evidence of class optee-device"),
        (["--class", "emulated", "--kind", "sgx"], "verifies no evidence of class emulated and kind sgx"),
        (["--class", "sgx", "--runtime", f"mrenclave={'ab' * 32}"], "is no root of kind sgx"),
        (["--class", "emulated", "--signer", "AB"], "64 hex digits"),
        (["--class", "emulated", "--freshness", "any"], "cannot be 'any'"),
    ],
    ids=[
        "a class of later",
        "another kind",
        "a key in place of the vendor's root",
        "a short signer",
        "an unknown freshness",
    ],
)
def test_a_policy_that_cannot_be_written(folder, capsys, more, said):
    run(["keys", "new", "attestation"])
    assert init("--anchor", "keys/attestation.pub.pem", *more) == 1
    assert said in capsys.readouterr().err
    assert not (folder / "policy.toml").exists()
