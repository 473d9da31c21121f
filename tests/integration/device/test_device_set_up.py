"""deploy/device/set_up.py: below a root folder of its own, and for real in a copy of this machine's file system."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import needs

SCRIPT = Path(__file__).parents[3] / "deploy/device/set_up.py"
KEY = "a2V5IG9mIHRoZSBkZXZpY2Ugb2Ygc29tZSBsZW5ndGg="
CERTIFICATE = "-----BEGIN CERTIFICATE-----\n..."
PRIVATE_KEY = "-----BEGIN EC PRIVATE KEY-----\n..."
DPKG = "Package: {}\nStatus: install ok installed\nVersion: 1\n"


def run(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert "Traceback" not in done.stderr, done.stderr
    assert KEY not in done.stdout + done.stderr
    return done


def steps(*arguments: object) -> tuple[int, dict[str, dict[str, Any]]]:
    done = run(*arguments, "--json")
    return done.returncode, {step["step"]: step for step in map(json.loads, done.stdout.splitlines())}


def states(*arguments: object) -> dict[str, str]:
    return {name: step["state"] for name, step in steps(*arguments)[1].items()}


def put(root: Path, name: str, text: str, mode: int = 0o644) -> Path:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def everything(root: Path) -> dict[str, tuple[int, str]]:
    """Mode and content of every file."""
    return {
        str(path.relative_to(root)): (path.stat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with the packages, and nothing else."""
    root = tmp_path / "root"
    put(root, "/etc/os-release", 'ID=ubuntu\nVERSION_ID="24.04"\n')
    put(root, "/var/lib/dpkg/status", "\n".join(DPKG.format(name) for name in ("moby-engine", "aziot-edge")))
    put(root, "/etc/passwd", "root:x:0:0::/root:/bin/sh\ntss:x:106:112::/:/bin/false\n")
    return root


@pytest.fixture
def registration(tmp_path: Path) -> list[object]:
    key = put(tmp_path, "press-2.key", KEY + "\n", 0o600)
    return ["--id-scope", "0ne00ABCDEF", "--registration-id", "press-2", "--symmetric-key-file", key]


def test_a_check_names_what_is_missing_and_changes_nothing(root: Path) -> None:
    before = everything(root)
    code, found = steps("--root", root, "--check")
    assert code == 1
    missing = {name for name, step in found.items() if step["state"] == "missing"}
    assert missing == {"limits for containers' logs", "limit for the journal", "config.toml"}
    assert all(found[name]["advice"] for name in missing)
    assert everything(root) == before


def test_an_empty_machine_misses_everything(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, found = steps("--root", tmp_path / "empty", "--check")
    assert code == 1
    assert {name for name, step in found.items() if step["state"] == "ok"} == {"clock", "TEE devices", "services"}
    assert found["operating system"]["what"] == "this is ? ?"


def test_it_is_set_up_once_and_then_left_alone(root: Path, registration: list[object]) -> None:
    arguments = ["--root", root, *registration, "--tee", "tpm", "--tee", "sgx"]
    first = states(*arguments)
    assert set(first.values()) == {"ok", "done"}
    config = root / "etc/aziot/config.toml"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    text = config.read_text()
    assert 'source = "dps"' in text
    assert 'id_scope = "0ne00ABCDEF"' in text
    assert 'registration_id = "press-2"' in text
    assert f'symmetric_key = {{ value = "{KEY}" }}' in text
    rules = (root / "etc/udev/rules.d/90-edgeclave.rules").read_text().splitlines()
    assert rules == [
        f'KERNEL=="{name}", GROUP="edgeclave", MODE="0660"' for name in ("tpmrm[0-9]*", "sgx_enclave", "sgx_provision")
    ]
    assert json.loads((root / "etc/docker/daemon.json").read_text())["log-opts"] == {"max-size": "10m", "max-file": "3"}
    assert "SystemMaxUse=500M" in (root / "etc/systemd/journald.conf.d/edgeclave.conf").read_text()
    before = everything(root)
    assert set(states(*arguments).values()) == {"ok"}
    assert everything(root) == before
    assert run("--root", root, "--check").returncode == 0


def test_the_configuration_is_toml(root: Path, registration: list[object]) -> None:
    import tomllib

    assert run("--root", root, *registration).returncode == 0
    provisioning = tomllib.loads((root / "etc/aziot/config.toml").read_text())["provisioning"]
    assert provisioning["global_endpoint"].startswith("https://")
    assert provisioning["attestation"] == {
        "method": "symmetric_key",
        "registration_id": "press-2",
        "symmetric_key": {"value": KEY},
    }


def test_x509_files_go_where_the_services_read_them(root: Path, tmp_path: Path) -> None:
    import tomllib

    certificate = put(tmp_path, "press-2.pem", CERTIFICATE)
    key = put(tmp_path, "press-2.key.pem", PRIVATE_KEY, 0o600)
    arguments = [
        "--id-scope",
        "0ne",
        "--registration-id",
        "press-2",
        "--certificate",
        certificate,
        "--private-key",
        key,
    ]
    assert run("--root", root, *arguments).returncode == 0
    attestation = tomllib.loads((root / "etc/aziot/config.toml").read_text())["provisioning"]["attestation"]
    stored = {name: root / attestation[name].removeprefix("file:///") for name in ("identity_cert", "identity_pk")}
    assert [path.read_text() for path in stored.values()] == [CERTIFICATE, PRIVATE_KEY]
    assert stat.S_IMODE(stored["identity_pk"].stat().st_mode) == 0o600
    stored["identity_pk"].unlink()
    assert "is not there" in steps("--root", root, "--check")[1]["config.toml"]["what"]


def test_what_others_wrote_is_kept(root: Path, registration: list[object]) -> None:
    put(root, "/etc/aziot/config.toml", '[provisioning]\nsource = "manual"\n', 0o600)
    put(root, "/etc/docker/daemon.json", '{"data-root": "/data"}')
    code, found = steps("--root", root, *registration)
    assert (code, found["config.toml"]["state"]) == (1, "missing")
    assert "written by somebody else" in found["config.toml"]["what"]
    assert "manual" in (root / "etc/aziot/config.toml").read_text()
    assert json.loads((root / "etc/docker/daemon.json").read_text())["data-root"] == "/data"
    put(root, "/etc/docker/daemon.json", '{"data-root": ')
    assert "not JSON" in steps("--root", root)[1]["limits for containers' logs"]["what"]


def test_a_configuration_that_others_can_read_is_closed(root: Path) -> None:
    path = put(root, "/etc/aziot/config.toml", '[provisioning]\nsource = "manual"\n', 0o644)
    assert "can be read by others" in steps("--root", root, "--check")[1]["config.toml"]["what"]
    assert states("--root", root)["config.toml"] == "done"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_devices_that_modules_cannot_open_are_named(root: Path) -> None:
    put(root, "/dev/tpmrm0", "", 0o660)
    put(root, "/dev/sgx_enclave", "", 0o666)
    what = steps("--root", root, "--check")[1]["TEE devices"]["what"]
    assert ("tpmrm0" in what, "sgx_enclave" in what) == (True, False)
    assert "--tee" in steps("--root", root)[1]["TEE devices"]["what"]
    assert states("--root", root, "--tee", "tpm")["TEE devices"] == "done"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--id-scope", "0ne"], "go together", id="half a registration"),
        pytest.param(["--id-scope", "0ne", "--registration-id", "a"], "go together", id="no key"),
        pytest.param(["--certificate", "KEY"], "go together", id="a certificate without its key"),
        pytest.param(
            ["--id-scope", "0ne", "--registration-id", "a", "--symmetric-key-file", "nothing"],
            "is not a file",
            id="no such key file",
        ),
        pytest.param(
            ["--id-scope", "0ne", "--registration-id", "a", "--symmetric-key-file", "/"],
            "is not a file",
            id="a folder for the key",
        ),
        pytest.param(
            ["--id-scope", "0ne", "--registration-id", "a", "--symmetric-key-file", "EMPTY"],
            "base64",
            id="no key in it",
        ),
        pytest.param(
            ["--id-scope", "0ne", "--registration-id", "a", "--certificate", "PEM_KEY", "--private-key", "PEM_KEY"],
            "holds no CERTIFICATE in PEM",
            id="a key for the certificate",
        ),
        pytest.param(
            ["--id-scope", "0ne", "--registration-id", "a", "--certificate", "PEM", "--private-key", "BAD"],
            "holds no PRIVATE KEY in PEM",
            id="no PEM",
        ),
        pytest.param(
            ["--id-scope", "0ne", "--registration-id", "a", "--symmetric-key-file", "BAD"], "base64", id="not a key"
        ),
        pytest.param(
            ["--id-scope", '"\n', "--registration-id", "a", "--symmetric-key-file", "KEY"],
            "characters",
            id="characters that would break out of TOML",
        ),
        pytest.param(["--tee", "trustzone"], "invalid choice", id="an unknown TEE"),
        pytest.param(["--package-source", "nothing.list"], "is not a file", id="no such package source"),
    ],
)
def test_wrong_usage_is_explained_and_nothing_done(
    root: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    contents = {"KEY": KEY, "BAD": "not base64!", "EMPTY": "\n", "PEM": CERTIFICATE, "PEM_KEY": PRIVATE_KEY}
    files = {name: put(tmp_path, f"{name}.file", content) for name, content in contents.items()}
    before = everything(root)
    done = run("--root", root, *[files.get(argument, argument) for argument in arguments])
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert everything(root) == before


def test_files_that_are_not_utf_8_are_read_all_the_same(root: Path, registration: list[object]) -> None:
    for name in ("/etc/passwd", "/etc/group", "/etc/systemd/journald.conf.d/old.conf", "/etc/aziot/config.toml"):
        put(root, name, "").write_bytes(b"# Jos\xe9\n")
    assert steps("--root", root, "--check")[1]["config.toml"]["state"] == "missing"
    found = steps("--root", root, *registration, "--tee", "tpm")[1]
    assert found["TEE devices"]["state"] == "done"
    assert "written by somebody else" in found["config.toml"]["what"]


def test_it_has_an_example_and_runs_on_the_oldest_python() -> None:
    assert "example:" in run("--help").stdout
    for path in SCRIPT.parent.glob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 10))


INSTALLED = """
set -eu
mount -t tmpfs tmpfs {scratch}
mkdir {scratch}/upper {scratch}/work {scratch}/machine
mount -t overlay overlay -o lowerdir=/,upperdir={scratch}/upper,workdir={scratch}/work {scratch}/machine
mount -t proc proc {scratch}/machine/proc
mount --bind /dev {scratch}/machine/dev
mkdir {scratch}/machine/given
cp -r {given}/. {scratch}/machine/given/
rm -rf {scratch}/machine/etc/apt/sources.list {scratch}/machine/etc/apt/sources.list.d {scratch}/machine/etc/docker
mkdir {scratch}/machine/etc/apt/sources.list.d
exec chroot {scratch}/machine sh -eu /given/all.sh
"""
EVERYTHING = """
run() {{ {python} /given/device/set_up.py --json "$@" || echo "exit code $?"; }}
run --package-source /given/edge.list --id-scope 0ne --registration-id press-2 --symmetric-key-file /given/key --tee tpm
echo ---
run --id-scope 0ne --registration-id press-2 --symmetric-key-file /given/key --tee tpm
echo ---
cat /var/lib/stand-in.log
stat -c '%n %a %U' /etc/aziot/config.toml
getent group edgeclave
"""
POSTINST = "#!/bin/sh\nset -e\nuseradd --system aziotcs\nuseradd --system aziotks\n"
IOTEDGE = '#!/bin/sh\ntest -s /etc/aziot/config.toml\necho "iotedge $*" >> /var/lib/stand-in.log\n'


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a copy of this machine")
def test_packages_users_groups_and_services_in_a_copy_of_this_machine(tmp_path: Path) -> None:
    """Real apt, dpkg and user database. `aziot-edge` is a stand-in package from a repository in a folder."""
    needs.tool("dpkg-deb", "dpkg")
    given, scratch = tmp_path / "given", tmp_path / "scratch"
    scratch.mkdir()
    given.mkdir()
    for path in SCRIPT.parent.glob("*.py"):
        put(given, f"device/{path.name}", path.read_text())
    put(given, "key", KEY)
    _stand_in_repository(tmp_path, given / "repository")
    put(given, "edge.list", "deb [trusted=yes] file:/given/repository ./\n")
    put(given, "all.sh", EVERYTHING.format(python=sys.executable))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", INSTALLED.format(scratch=scratch, given=given)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, second, after = done.stdout.split("---\n")
    lines = [json.loads(line) for line in first.splitlines() if line.startswith("{")]
    state = {each["step"]: each["state"] for each in lines}
    assert {"IoT Edge", "config.toml", "TEE devices", "limits for containers' logs"} <= {
        name for name, each in state.items() if each == "done"
    }, first
    changed = [line for line in second.splitlines() if '"done"' in line]
    assert not [line for line in changed if "services" not in line and "clock" not in line], second
    assert "iotedge config apply" in after
    assert "/etc/aziot/config.toml 600 root" in after
    assert "edgeclave:x:10001:" in after


def _stand_in_repository(folder: Path, repository: Path) -> None:
    repository.mkdir()
    for name, engine in (("aziot-edge", False), ("moby-engine", True)):
        tree = folder / name
        control = f"Package: {name}\nVersion: 1.5\nArchitecture: all\nMaintainer: nobody <n@invalid>\nDescription: x\n"
        put(tree, "DEBIAN/control", control)
        if not engine:
            put(tree, "DEBIAN/postinst", POSTINST, 0o755)
            put(tree, "usr/bin/iotedge", IOTEDGE, 0o755)
        package = repository / f"{name}.deb"
        subprocess.run(["dpkg-deb", "--build", tree, package], check=True, capture_output=True)
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        size = package.stat().st_size
        with (repository / "Packages").open("a") as index:
            index.write(f"{control}Filename: ./{name}.deb\nSize: {size}\nSHA256: {digest}\n\n")
