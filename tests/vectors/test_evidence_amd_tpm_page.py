"""docs/evidence-amd-tpm.md names what the program uses, and its policy can be loaded."""

import re
from pathlib import Path

import pytest

from edgeclave.evidence import (
    amd_certificates,
    amd_endorsements,
    amd_extensions,
    hcl_report,
    tpm_certificates,
    tpm_quote,
)
from edgeclave.evidence.kinds import KINDS
from edgeclave.evidence.policy_file import load_policy
from edgeclave.evidence.sev_snp_report import REPORT_BYTES, SIGNED_BYTES

PAGE = (Path(__file__).parents[2] / "docs" / "evidence-amd-tpm.md").read_text()
OURS = ("sev-snp", "azure-cvm", "tpm", "tpm-certified")


@pytest.mark.parametrize("kind", OURS)
def test_classes(kind):
    (row,) = re.findall(rf"^\| `{kind}` \| (.*?) \|", PAGE, re.MULTILINE)
    assert set(re.findall(r"`([a-z-]+)`", row)) == KINDS[kind].classes


def test_roots():
    for name, digest in amd_certificates.ROOTS.items():
        assert re.search(rf"^\| `{name}`.*\| `{digest.hex()}` \|", PAGE, re.MULTILINE)


def test_endorsements_and_registers():
    for kind in (*amd_endorsements.TYPES, *tpm_certificates.TYPES):
        assert f"`{kind.name}`" in PAGE
    for register in ("measurement", "vmpl", "guest_svn", "host_data", "family_id", "image_id", "id_key_digest"):
        assert f"`{register}`" in PAGE
        assert register in KINDS["sev-snp"].registers


def test_numbers():
    for number in (REPORT_BYTES, SIGNED_BYTES, tpm_quote.MAX_ATTEST_BYTES, hcl_report.MAX_HCL_REPORT_BYTES):
        assert str(number) in PAGE
    for number in (tpm_quote.RSASSA, tpm_quote.RSAPSS, tpm_quote.ECDSA, tpm_quote.SHA256):
        assert f"0x{number:04X}" in PAGE
    assert tpm_certificates.ATTESTATION_KEY_CERTIFICATE.dotted_string in PAGE
    assert amd_extensions.CHIP_ID == "1.3.6.1.4.1.3704.1.4"


def test_the_policy_can_be_loaded(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "policy.toml"
    head = 'classes = ["sev-snp"]\ntrusted_apps = [{unique_id = "' + "0" * 64 + '"}]\n'
    path.write_text(head + text.replace("<96 hex digits>", "ab" * 48))
    policy = load_policy(path)
    assert policy.anchors[0].fingerprint == amd_certificates.ROOTS["amd-milan-root"]
    measured = {"measurement": b"\xab" * 48, "vmpl": 0, "bootloader": 4, "snp": 24, "microcode": 219}
    assert policy.runtime["sev-snp"].differences(measured) == []
    assert policy.runtime["sev-snp"].differences({**measured, "snp": 23}) == ["snp is 23, below 24"]
