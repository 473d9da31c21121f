"""`edgeclave verify --at T` of archives of every kind of evidence: what became known since T."""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from edgeclave import cose
from edgeclave.cli.main import run
from edgeclave.cloud.archive import ISSUER, Archive
from edgeclave.cloud.heads import HeadStore
from edgeclave.cloud.reader import Reader
from edgeclave.cloud.verifier_service.keyring import load_keyring, new_key
from edgeclave.evidence import collection, intel
from edgeclave.evidence.amd_endorsements import TYPES
from edgeclave.evidence.eat import Claims, Epoch, make_eat, report_data
from edgeclave.evidence.endorsements import Endorsements, read_any, store
from edgeclave.evidence.kinds import KINDS
from edgeclave.evidence.policy_embedding import embed_policy
from edgeclave.evidence.policy_file import load_policy
from tests.fixtures.amd_benches import AzureBench, CertifiedTpmBench, SevSnpBench, TpmBench, hardware_of
from tests.fixtures.azure_hardware import AzureHardware, vtpm
from tests.fixtures.benches import EmulatorBench, IntelBench
from tests.fixtures.intel_hardware import IntelHardware

from .conftest import DEVICE, SIGNER, Instance, World

DAY = 86400
TODAY = int(time.time())
RECEIVED = TODAY - 365 * DAY
LASTING = {"begin": RECEIVED - 30 * DAY, "end": TODAY + 30 * DAY}
BENCHES = {
    "emulator": EmulatorBench,
    "sgx": lambda: IntelBench("sgx", 3),
    "tdx": lambda: IntelBench("tdx", 4),
    "sev-snp": lambda: SevSnpBench(hardware_of(**LASTING)),
    "azure-cvm": lambda: AzureBench(AzureHardware(hardware_of(**LASTING), vtpm())),
    "tpm": TpmBench,
    "tpm-certified": CertifiedTpmBench,
}
REVOCABLE = ("sgx", "tdx", "sev-snp", "azure-cvm")
"""For the others nobody publishes what was revoked."""


@dataclasses.dataclass
class BenchInstance(Instance):
    bench: object = None

    def make_evidence(self, nonce, host_time=None):
        channel_key = cose.generate_key().public_key()
        recipients = {output: (keys.version, keys.digest) for output, keys in self.sets.items()}
        epoch = Epoch(self.epoch, "none", None)
        claims = Claims(
            nonce, self.key.public_key(), channel_key, self.identity, epoch, "consistent", recipients, host_time
        )
        eat = make_eat(claims, self.key)
        quote = self.bench.quote(report_data(eat))
        item = collection.Item(KINDS[self.bench.kind].media_type, quote)
        return collection.encode_collection(collection.Collection(eat, item))


def intel_collateral(bench, now, **changes):
    dated = copy.copy(bench.hardware)
    dated.start, dated.end = (datetime.fromtimestamp(now, UTC) + timedelta(days=days) for days in (-1, 30))
    return intel.read_collateral(dated.collateral(bench.tee, **changes))


def published(bench, now, *, revoked=False, reason=None):
    """What the vendor publishes at a time, and what certifies this platform."""
    if isinstance(bench, IntelBench):
        return intel_collateral(bench, now, revoked=revoked, reason=reason)
    if bench.kind == "tpm-certified":
        signed = bench.authority.certify(bench.hardware.public_key, begin=RECEIVED - DAY, end=RECEIVED + DAY)
        return KINDS[bench.kind].endorsement_types[0].read(signed)
    if bench.kind in ("sev-snp", "azure-cvm"):
        hardware = bench.hardware if bench.kind == "sev-snp" else bench.hardware.amd
        listed = hardware.revocation_list([65537] if revoked else [], begin=now - DAY, end=now + DAY, reason=reason)
        return [*hardware.endorsement_list(), *read_any(listed, TYPES)]
    return []


def policy_text(bench, platform):
    """The bench's policy as a file, with its root next to it."""
    (anchor,) = bench.policy().anchors
    (reference,) = bench.policy().runtime.values()
    lines = [
        f'classes = ["{anchor.platform_class}"]', 'freshness = "unknown"',
        "[[anchors]]", f'kind = "{anchor.kind}"', f'class = "{anchor.platform_class}"',
        f'{"test_root" if anchor.test else "public_key"} = "root.pem"',
        *([] if anchor.test else [f'device = "{DEVICE}"']),
        f"[[runtime.{anchor.kind}]]",
        *(f'{name} = "{value.hex()}"' if isinstance(value, bytes) else f"{name} = {value}"
          for name, value in reference.values.items()),
        "[[trusted_apps]]", f'signer_id = "{SIGNER.hex()}"', "product_id = 1",
        *(["[devices]", f'{DEVICE} = ["{platform.hex()}"]'] if anchor.test else []),
    ]  # fmt: skip
    return "\n".join(lines)


@pytest.fixture(params=BENCHES)
def kept(request, tmp_path, monkeypatch):
    """An archive of one result, a year old; its folder and the bench."""
    bench = BENCHES[request.param]()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGECLAVE_ENDORSEMENTS", raising=False)
    if isinstance(bench, IntelBench):
        bench.hardware = IntelHardware(RECEIVED, days=3650)
    (anchor,) = bench.policy().anchors
    pem = anchor.key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "root.pem").write_bytes(pem)
    then = Endorsements(published(bench, RECEIVED))
    quote = bench.quote(bytes(64))
    platform = KINDS[bench.kind].verify(quote, then, [anchor], RECEIVED).platform_instance
    (tmp_path / "policy.toml").write_text(policy_text(bench, platform))
    new_key(tmp_path / "keys", "one", datetime.fromtimestamp(RECEIVED, UTC) - timedelta(days=1))
    world, policy = World(), load_policy(tmp_path / "policy.toml")
    instance = BenchInstance(world, bench=bench)
    signer = load_keyring(tmp_path / "keys", ISSUER).signer(RECEIVED)
    archive = Archive(tmp_path / "archive", policy, embed_policy(tmp_path / "policy.toml"), then, signer)
    heads = HeadStore(tmp_path / "reader")
    reader = Reader(policy, world.recipient_key, heads, clock=lambda: RECEIVED, endorsements=then, archive=archive)
    findings = reader.process_batch([*instance.begin(), instance.result(1)])
    heads.close()
    assert [finding.kind for finding in findings] == ["evidence", "open", "result"]
    return tmp_path, bench


def since(folder, capsys):
    (record,) = (folder / "archive/results").glob("*/*.json")
    capsys.readouterr()
    code = run(["verify", str(record), "--json"])
    checks = {each["point"]: each for each in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["result"]["verdict"] == "passed", checks
    return code, checks["since"]["verdict"], checks["since"].get("code")


def test_with_what_is_published_today(kept, capsys):
    folder, bench = kept
    for each in published(bench, TODAY):
        store(folder / ".edgeclave/endorsements", each)
    assert since(folder, capsys) == (0, "passed", None)


def test_without_it(kept, capsys):
    folder, bench = kept
    expected = (1, "failed", "revocations-unknown") if bench.kind in REVOCABLE else (0, "passed", None)
    assert since(folder, capsys) == expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (None, (1, "failed", "revoked-since")),
        (x509.ReasonFlags.key_compromise, (1, "failed", "revoked-since")),
        (x509.ReasonFlags.ca_compromise, (1, "failed", "revoked-since")),
        (x509.ReasonFlags.superseded, (0, "passed", "superseded")),
        (x509.ReasonFlags.cessation_of_operation, (0, "passed", "superseded")),
    ],
)
def test_revoked_since(kept, capsys, reason, expected):
    folder, bench = kept
    for each in published(bench, TODAY, revoked=True, reason=reason):
        store(folder / ".edgeclave/endorsements", each)
    assert since(folder, capsys) == (expected if bench.kind in REVOCABLE else (0, "passed", None))


@pytest.mark.parametrize("kept", ["sev-snp", "azure-cvm"], indirect=True)
def test_a_list_that_was_never_at_hand(kept, capsys):
    """AMD's certificates verify without a list; but then nobody has looked whether the chain was revoked."""
    folder, _ = kept
    for path in (folder / "archive/endorsements/amd-revocation-list").rglob("*"):
        if path.is_file():
            path.unlink()
    assert since(folder, capsys) == (1, "failed", "revocations-unknown")
