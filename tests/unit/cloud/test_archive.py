"""What `consume --archive` keeps, and `edgeclave verify --at T` of it: a year later, on stand-in Intel hardware."""

from __future__ import annotations

import copy
import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from edgeclave import cose
from edgeclave.cli.main import run
from edgeclave.cloud import archive as archives
from edgeclave.cloud.archive import ISSUER, Archive
from edgeclave.cloud.heads import HeadStore
from edgeclave.cloud.reader import Reader
from edgeclave.cloud.verifier_service.keyring import load_keyring, new_key
from edgeclave.errors import ConfigurationError
from edgeclave.evidence import collection, intel, sgx
from edgeclave.evidence.eat import Claims, Epoch, make_eat, report_data
from edgeclave.evidence.endorsements import Endorsements, store
from edgeclave.evidence.policy_embedding import embed_policy
from edgeclave.evidence.policy_file import load_policy
from tests.fixtures.intel_hardware import IntelHardware

from .conftest import DEVICE, RUNTIME, SIGNER, Instance, World

TODAY = int(time.time())
RECEIVED = TODAY - 365 * 86400
POLICY = f"""
classes = ["emulated"]
freshness = "unknown"
[[anchors]]
kind = "sgx"
class = "emulated"
test_root = "root.pem"
[[runtime.sgx]]
mrenclave = "{RUNTIME.hex()}"
[[trusted_apps]]
signer_id = "{SIGNER.hex()}"
product_id = 1
[devices]
{DEVICE} = ["{{platform}}"]
"""


@dataclass
class SgxInstance(Instance):
    hardware: IntelHardware | None = None

    def make_evidence(self, nonce, host_time=None):
        channel_key = cose.generate_key().public_key()
        recipients = {output: (keys.version, keys.digest) for output, keys in self.sets.items()}
        epoch = Epoch(self.epoch, "none", None)
        claims = Claims(
            nonce, self.key.public_key(), channel_key, self.identity, epoch, "consistent", recipients, host_time
        )
        eat = make_eat(claims, self.key)
        quote = self.hardware.sgx_quote(report_data(eat), mrenclave=RUNTIME)
        return collection.encode_collection(collection.Collection(eat, collection.Item(sgx.MEDIA_TYPE, quote)))


def collateral(hardware, now, **changes):
    """As the vendor publishes it at a time."""
    dated = copy.copy(hardware)
    dated.start, dated.end = (datetime.fromtimestamp(now, UTC) + timedelta(days=days) for days in (-1, 30))
    return intel.read_collateral(dated.collateral("sgx", **changes))


@pytest.fixture(scope="module")
def hardware():
    return IntelHardware(RECEIVED, days=3650)


@pytest.fixture
def folder(tmp_path, monkeypatch, hardware):
    """An archive that was written a year ago, with three results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGECLAVE_ENDORSEMENTS", raising=False)
    (tmp_path / "root.pem").write_text(hardware.root_pem)
    (tmp_path / "policy.toml").write_text(POLICY.format(platform=hardware.ppid.hex()))
    new_key(tmp_path / "keys", "one", datetime.fromtimestamp(RECEIVED, UTC) - timedelta(days=1))
    for each in collateral(hardware, RECEIVED):
        store(tmp_path / "then", each)
    world = World()
    instance = SgxInstance(world, hardware=hardware)
    with_store(tmp_path, world, [*instance.begin(), *(instance.result(value) for value in (1, 2, 3))])
    (tmp_path / "root.pem").unlink()  # the archive needs nothing beside itself
    return tmp_path


def archive_of(folder):
    signer = load_keyring(folder / "keys", ISSUER).signer(RECEIVED)
    policy = load_policy(folder / "policy.toml")
    text = embed_policy(folder / "policy.toml")
    return policy, Archive(folder / "archive", policy, text, Endorsements(folders=[folder / "then"]), signer)


def with_store(folder, world, events):
    policy, archive = archive_of(folder)
    heads = HeadStore(folder / "reader")
    known = Endorsements(folders=[folder / "then"])
    try:
        reader = Reader(policy, world.recipient_key, heads, clock=lambda: RECEIVED, endorsements=known, archive=archive)
        return reader.process_batch(events)
    finally:
        heads.close()


def records(folder):
    return sorted((folder / "archive" / "results").glob("*/*.json"))


def verify(folder, capsys, *options, record=None):
    code = run(["verify", str(record or records(folder)[0]), *options, "--json"])
    printed = capsys.readouterr()
    report = json.loads(printed.out) if printed.out else {"checks": []}
    return code, {check["point"]: (check["verdict"], check.get("code")) for check in report["checks"]}, printed.err


def today(folder, hardware, **changes):
    for each in collateral(hardware, TODAY, **changes):
        store(folder / ".edgeclave/endorsements", each)


AT = ("--at", str(RECEIVED))


def test_evidence_and_policy_are_kept_once(folder):
    kept = [str(path.relative_to(folder / "archive")) for path in (folder / "archive").rglob("*") if path.is_file()]
    assert len([name for name in kept if name.startswith("results/")]) == 3
    assert len([name for name in kept if name.startswith("evidence/")]) == 2
    assert len([name for name in kept if name.startswith("policies/")]) == 1
    assert len([name for name in kept if name.startswith("endorsements/intel-collateral/")]) == 1
    assert not [name for name in kept if name.endswith(".new")]


def test_accepted_as_of_then_and_not_provable(folder, hardware, capsys):
    today(folder, hardware)
    code, checks, _ = verify(folder, capsys, *AT)
    assert code == 0
    assert checks["result"] == ("passed", None)
    assert checks["since"] == ("passed", None)
    assert checks["time"] == ("not judged", "not-provable-at")
    run(["verify", str(records(folder)[0]), *AT])
    assert "not provable at T" in capsys.readouterr().out


def test_the_time_of_receipt_is_the_default(folder, hardware, capsys):
    today(folder, hardware)
    assert verify(folder, capsys)[0] == 0


def test_endorsements_must_cover_the_time(folder, hardware, capsys):
    today(folder, hardware)
    code, checks, _ = verify(folder, capsys, "--at", str(RECEIVED + 60 * 86400))
    assert (code, checks["platform"]) == (1, ("failed", "endorsement-expired"))
    assert checks["result"][0] == "not reached"
    code, checks, _ = verify(folder, capsys, "--at", str(RECEIVED - 60 * 86400))
    assert (code, checks["platform"]) == (1, ("failed", "endorsement-not-yet-valid"))


def test_keys_revoked_since(folder, hardware, capsys):
    today(folder, hardware, revoked=True)
    code, checks, _ = verify(folder, capsys, *AT)
    assert code == 1
    assert checks["result"] == ("passed", None)
    assert checks["since"] == ("failed", "revoked-since")


BEFORE, AFTER = RECEIVED - 7200, RECEIVED + 7200
REPLACED = {"revoked": True, "reason": x509.ReasonFlags.superseded}


@pytest.mark.parametrize(
    ("changes", "code", "verdict"),
    [
        pytest.param({"revoked": True, "revoked_at": AFTER}, 1, ("failed", "revoked-since"), id="no reason given"),
        pytest.param(
            {"revoked": True, "revoked_at": AFTER, "reason": x509.ReasonFlags.key_compromise},
            1,
            ("failed", "revoked-since"),
            id="the key was stolen",
        ),
        pytest.param({**REPLACED, "revoked_at": AFTER}, 0, ("passed", "superseded"), id="replaced later"),
        pytest.param({**REPLACED, "revoked_at": BEFORE}, 1, ("failed", "revoked-since"), id="replaced before"),
    ],
)
def test_why_keys_were_revoked(folder, hardware, capsys, changes, code, verdict):
    today(folder, hardware, **changes)
    found, checks, _ = verify(folder, capsys, *AT)
    assert (found, checks["since"]) == (code, verdict)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"status": "OutOfDate", "advisories": ("INTEL-SA-09999",)}, id="a later advisory"),
        pytest.param({"svn": 1}, id="below every level of today"),
    ],
)
def test_superseded(folder, hardware, capsys, changes):
    today(folder, hardware, **changes)
    code, checks, _ = verify(folder, capsys, *AT)
    assert (code, checks["since"]) == (0, ("passed", "superseded"))
    run(["verify", str(records(folder)[0]), *AT])
    assert "accepted as of" in capsys.readouterr().out


def test_without_what_the_vendor_says_today(folder, capsys):
    code, checks, _ = verify(folder, capsys, *AT)
    assert (code, checks["since"]) == (1, ("failed", "revocations-unknown"))


class TestAttestationResult:
    def jwks(self, folder, name="keys"):
        (folder / "jwks.json").write_text(json.dumps(load_keyring(folder / name, ISSUER).jwks()))
        return ("--issuer", ISSUER, "--jwks", str(folder / "jwks.json"))

    def test_of_the_pinned_verifier(self, folder, hardware, capsys):
        today(folder, hardware)
        code, checks, _ = verify(folder, capsys, *AT, *self.jwks(folder))
        assert (code, checks["attestation"]) == (0, ("passed", None))

    def test_of_another(self, folder, hardware, capsys):
        today(folder, hardware)
        new_key(folder / "others", "one", datetime.fromtimestamp(RECEIVED, UTC))
        code, checks, _ = verify(folder, capsys, *AT, *self.jwks(folder, "others"))
        assert (code, checks["attestation"]) == (1, ("failed", "unknown-token-key"))

    def test_spoiled(self, folder, hardware, capsys):
        today(folder, hardware)
        (path,) = (folder / "archive" / "evidence").glob("*.jwt")
        path.write_text("x")
        code, checks, _ = verify(folder, capsys, *AT, *self.jwks(folder))
        assert (code, checks["attestation"]) == (1, ("failed", "malformed-token"))


@pytest.mark.parametrize("part", ["evidence/*.cbor", "policies/*.toml", "results/*/*.json"])
def test_a_damaged_archive(folder, hardware, capsys, part):
    today(folder, hardware)
    path = sorted((folder / "archive").glob(part))[0]
    data = bytearray(path.read_bytes())
    data[len(data) - 20] ^= 1
    path.write_bytes(data)
    code, _, error = verify(folder, capsys, *AT)
    assert code == 2
    assert "[archive-damaged]" in error or "[not-readable]" in error


def test_a_crash_before_the_commit_leaves_nothing_half(tmp_path, monkeypatch, hardware):
    """The disk fails at each write in turn: nothing was read then, and the next run archives all of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root.pem").write_text(hardware.root_pem)
    (tmp_path / "policy.toml").write_text(POLICY.format(platform=hardware.ppid.hex()))
    new_key(tmp_path / "keys", "one", datetime.fromtimestamp(RECEIVED, UTC) - timedelta(days=1))
    for each in collateral(hardware, RECEIVED):
        store(tmp_path / "then", each)
    world = World()
    instance = SgxInstance(world, hardware=hardware)
    events = [*instance.begin(), instance.result(1), instance.result(2)]
    archive_of(tmp_path)  # the policy is there
    real, failures = os.fsync, 0
    while True:
        left = failures

        def failing(descriptor):
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError("no space left on device")
            real(descriptor)

        monkeypatch.setattr(archives.os, "fsync", failing)
        try:
            findings = with_store(tmp_path, world, events)
            break
        except ConfigurationError as error:
            assert error.code == "cannot-write"  # noqa: PT017
        finally:
            monkeypatch.setattr(archives.os, "fsync", real)
        for path in records(tmp_path):
            named = json.loads(path.read_bytes())["evidence"]
            assert (tmp_path / "archive" / "evidence" / f"{named}.cbor").exists()
        failures += 1
    assert failures >= 4  # what one run wrote, the next one need not
    assert [finding.kind for finding in findings] == ["evidence", "open", "result", "result"]
    assert len(records(tmp_path)) == 2


class TestPolicyInOneFile:
    def test_this_release_and_keys_are_written_out(self, folder, hardware):
        (folder / "root.pem").write_text(hardware.root_pem)
        extra = '[[anchors]]\nkind="emulator"\nclass="emulated"\npublic_key = "key.pem"\n'
        (folder / "key.pem").write_bytes(_public_pem())
        text = (folder / "policy.toml").read_text()
        (folder / "policy.toml").write_text(
            text.replace("[[runtime.sgx]]", extra + '[runtime]\nemulator = ["this-release"]\n[[runtime.sgx]]')
        )
        embedded = embed_policy(folder / "policy.toml").decode()
        assert "this-release" not in embedded
        assert embedded.count("-----BEGIN") == 2

    def test_what_cannot_be_written_out(self, folder, hardware):
        (folder / "root.pem").write_text(hardware.root_pem)
        text = (folder / "policy.toml").read_text().replace('test_root = "root.pem"', 'test_root = """root.pem"""')
        (folder / "policy.toml").write_text(text)
        with pytest.raises(ConfigurationError) as refused:
            embed_policy(folder / "policy.toml")
        assert refused.value.code == "bad-policy"


def _public_pem():
    from edgeclave.keys import public_pem

    return public_pem(cose.generate_key().public_key())
