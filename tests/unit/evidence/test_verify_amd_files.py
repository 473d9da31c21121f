"""`edgeclave verify` and `endorsements import` on files of AMD, Azure and TPM, run as a person or a script would."""

import json

import pytest
from cryptography.hazmat.primitives import serialization

from edgeclave.cli.main import run
from tests.fixtures.amd_benches import AzureBench, CertifiedTpmBench, SevSnpBench, TpmBench
from tests.fixtures.evidence_bench import IDENTITY, NONCE, NOW, Instance
from tests.fixtures.real_vectors import FOLDER, real_vector
from tests.fixtures.tpm_hardware import BOOTED

IN_2025 = "2025-06-01T00:00:00Z"
TRUSTED_APP = f'[[trusted_apps]]\nsigner_id = "{IDENTITY.signer_id.hex()}"\nproduct_id = 7\n'


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGECLAVE_ENDORSEMENTS", raising=False)
    return tmp_path


def verify(capsys, *arguments):
    code = run(["verify", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


class TestRealFiles:
    """What ../shared/vectors/SOURCES.md says of them."""

    @pytest.mark.parametrize(
        ("name", "kind", "root"),
        [
            ("amd/report_milan.hex", "sev-snp", "amd-milan-root"),
            ("amd/trustee/test-report.bin", "sev-snp", "amd-milan-root"),
            ("amd/trustee/test-vlek-report.bin", "sev-snp", "amd-milan-root"),
            ("azure-cvm/evidence-v1.json", "azure-cvm", "amd-milan-root"),
        ],
    )
    def test_accepted_in_2025_with_imported_certificates(self, capsys, name, kind, root):
        real_vector(name)
        for files in ("amd", "amd/trustee"):
            assert run(["endorsements", "import", str(FOLDER / files)]) == 0
        capsys.readouterr()
        code, report = verify(capsys, FOLDER / name, "--at", IN_2025)
        assert (code, report["verdict"]) == (0, "accepted")
        assert (report["platform"]["kind"], report["platform"]["root"]) == (kind, root)

    @pytest.mark.parametrize(
        ("name", "at", "code"),
        [
            ("test-vlek-report.bin", "2025-12-11T12:00:00Z", "endorsement-expired"),
            ("test-report.bin", "2020-01-01T00:00:00Z", "endorsement-not-yet-valid"),
        ],
    )
    def test_refused_at_the_wrong_time(self, capsys, name, at, code):
        real_vector(f"amd/trustee/{name}")
        folder = FOLDER / "amd" / "trustee"
        assert run(["verify", str(folder / name), "--endorsements", str(folder), "--at", at]) == 1
        assert code in capsys.readouterr().out

    @pytest.mark.parametrize("name", ["test-vcek-invalid-new.der", "test-vcek-invalid-legacy.der"])
    def test_certificates_that_amd_never_issued(self, capsys, folder, name):
        files = [real_vector(f"amd/trustee/{name}"), real_vector("amd/trustee/milan_ask_ark_asvk.pem")]
        (folder / "files").mkdir()
        for number, data in enumerate(files):
            (folder / "files" / str(number)).write_bytes(data)
        report = FOLDER / "amd" / "trustee" / "test-report.bin"
        assert run(["verify", str(report), "--endorsements", "files", "--at", IN_2025]) == 1

    def test_a_certificate_is_no_report(self, capsys):
        real_vector("amd/vcek_milan.der")
        assert run(["verify", str(FOLDER / "amd" / "vcek_milan.der")]) == 2


def public_pem(key):
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(*form).decode()


ANCHORS = {
    "sev-snp": lambda bench: ("emulated", "test_root", bench.hardware.root_key.public_key()),
    "azure-cvm": lambda bench: ("emulated", "test_root", bench.hardware.amd.root_key.public_key()),
    "tpm": lambda bench: ("boot-attested", "public_key", bench.hardware.public_key),
    "tpm-certified": lambda bench: ("boot-attested", "public_key", bench.authority.key.public_key()),
}
RUNTIME = {
    "sev-snp": f'measurement = "{"6d" * 48}"\nvmpl = 0\nminimum_microcode = 115\n',
    "azure-cvm": f'measurement = "{"6d" * 48}"\npcr4 = "{BOOTED[4].hex()}"\n',
    "tpm": f'pcr4 = "{BOOTED[4].hex()}"\n',
    "tpm-certified": f'pcr7 = "{BOOTED[7].hex()}"\npcr11 = "{BOOTED[11].hex()}"\n',
}


@pytest.mark.parametrize("make", [SevSnpBench, AzureBench, TpmBench, CertifiedTpmBench])
class TestOurEvidence:
    """Of stand-in hardware, under a policy file."""

    def arrange(self, folder, bench, runtime=None):
        platform_class, field, key = ANCHORS[bench.kind](bench)
        (folder / "key.pem").write_text(public_pem(key))
        (folder / "evidence.cbor").write_bytes(Instance(bench).evidence())
        (folder / "certificates").mkdir()
        for number, endorsement in enumerate(bench.endorsements()):
            (folder / "certificates" / str(number)).write_bytes(endorsement.value)
        (folder / "policy.toml").write_text(
            f'classes = ["{platform_class}"]\nfreshness = "nonce"\n'
            f'[[anchors]]\nkind = "{bench.kind}"\nclass = "{platform_class}"\n{field} = "key.pem"\n'
            f"[[runtime.{bench.kind}]]\n{runtime or RUNTIME[bench.kind]}{TRUSTED_APP}"
        )
        arguments = ["evidence.cbor", "--policy", "policy.toml", "--at", str(NOW), "--nonce", NONCE.hex()]
        return [*arguments, "--endorsements", "certificates"] if bench.endorsements() else arguments

    def test_accepted(self, capsys, folder, make):
        code, report = verify(capsys, *self.arrange(folder, make()))
        assert (code, report["verdict"]) == (0, "accepted")

    def test_refused_under_another_reference_value(self, capsys, folder, make):
        bench = make()
        lower = RUNTIME[bench.kind].replace("115", "116").replace(BOOTED[4].hex(), "00" * 32)
        runtime = lower.replace(BOOTED[11].hex(), "00" * 32)
        code, report = verify(capsys, *self.arrange(folder, bench, runtime))
        assert (code, report["verdict"]) == (1, "refused")
        assert "wrong-runtime" in json.dumps(report)
