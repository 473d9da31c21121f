"""`edgeclave ta push` and `edgeclave ta pull`, against docker-registry."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from edgeclave.cli.main import run
from edgeclave.registry import Reference, RegistryAccess, push_package
from edgeclave.ta.build.output import write_package
from edgeclave.ta.package import read_package
from tests.fixtures.certificates import Authority
from tests.fixtures.docker_registry import PASSWORD, USER, DockerRegistry, with_password
from tests.fixtures.wat.packages import HandmadePackage, minimal_package


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path_factory.mktemp("registry")).running() as registry:
        yield registry


@pytest.fixture
def package(tmp_path: Path) -> HandmadePackage:
    return minimal_package(tmp_path / "packages", version="1.2.0+7")


@pytest.fixture(autouse=True)
def no_docker_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_pushed_into_a_deployment_and_pulled_again(
    registry: DockerRegistry, package: HandmadePackage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = tmp_path / ".env"
    assert run(["ta", "push", str(package.path), f"{registry.host}/plant/minimal", "--env", str(env), "--json"]) == 0
    pushed = said(capsys)
    assert pushed["package"] == f"{registry.host}/plant/minimal:1.2.0_7@{package.digest}"
    assert pushed["digest"] == package.digest
    assert (pushed["bytes_sent"] > 0, pushed["bytes_present"]) == (True, 0)
    assert env.read_text().splitlines() == [
        f"MINIMAL_PACKAGE={pushed['package']}",
        f"MINIMAL_DIGEST={package.digest}",
        f"MINIMAL_SIGNER={pushed['signer_id']}",
    ]

    out = tmp_path / "pulled" / "minimal.ta"
    assert run(["ta", "pull", pushed["package"], "--out", str(out), "--json"]) == 0
    pulled = said(capsys)
    assert (pulled["reference"], pulled["digest"]) == (pushed["package"], package.digest)
    assert pulled["identity"]["signer_id"] == pushed["signer_id"]
    assert pulled["identity"]["unique_id"] == pushed["unique_id"]
    assert out.read_bytes() == package.path.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["minimal.ta"]

    assert run(["ta", "push", str(package.path), f"{registry.host}/plant/minimal:latest"]) == 0
    assert f"package    {registry.host}/plant/minimal:latest@" in (text := capsys.readouterr().out)
    assert "0 bytes sent" in text
    assert run(["ta", "pull", f"{registry.host}/plant/minimal", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"reference            {registry.host}/plant/minimal@{package.digest}" in shown
    assert "minimal 1.2.0+7" in shown


def test_a_project_is_pushed_as_it_was_signed(
    registry: DockerRegistry, package: HandmadePackage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "project"
    (project / "build").mkdir(parents=True)
    (project / "ta.toml").write_text('name = "minimal"\nversion = "1"\nproduct_id = 1\nsecurity_version = 1\n')
    assert run(["ta", "push", str(project), f"{registry.host}/plant/project:1"]) == 1
    assert "run `edgeclave ta sign" in capsys.readouterr().err
    (project / "build" / "minimal.ta").write_bytes(package.path.read_bytes())
    assert run(["ta", "push", str(project), f"{registry.host}/plant/project:1"]) == 0


def test_what_the_enclave_would_refuse_is_neither_pushed_nor_kept(
    registry: DockerRegistry, package: HandmadePackage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, unsigned = read_package(package.path), tmp_path / "unsigned.ta"
    write_package(unsigned, good.wasm, b"no signature", {})
    assert run(["ta", "push", str(unsigned), f"{registry.host}/plant/unsigned:1"]) == 1
    assert "malformed-signature" in capsys.readouterr().err

    reference = Reference.parse(f"{registry.host}/plant/unsigned:1")
    asyncio.run(push_package(read_package(unsigned), reference, RegistryAccess()))
    out = tmp_path / "out.ta"
    out.write_bytes(b"what was there")
    assert run(["ta", "pull", str(reference), "--out", str(out)]) == 1
    assert "malformed-signature" in capsys.readouterr().err
    assert out.read_bytes() == b"what was there"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(["{host}/a:nothing"], "registry-not-found", id="not there"),
        pytest.param(["minimal:1"], "bad-registry-reference", id="no registry named"),
        pytest.param(["localhost:1/a:1"], "registry-unreachable", id="nobody there"),
        pytest.param(["{host}/a:1", "--username", "edge"], "bad-usage", id="a user without a password"),
        pytest.param(["{host}/a:1", "--password-stdin"], "bad-usage", id="a password without a user"),
    ],
)
def test_mistakes(
    registry: DockerRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: str
) -> None:
    given = [argument.format(host=registry.host) for argument in arguments]
    assert run(["ta", "pull", *given, "--out", str(tmp_path / "out.ta")]) == 1
    error = capsys.readouterr().err
    assert f"[{code}]" in error
    assert "do:" in error


def test_logins_by_standard_input_and_by_dockers_configuration(
    tmp_path: Path,
    package: HandmadePackage,
    no_docker_configuration: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    authority = Authority(tmp_path)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.root.public_bytes(Encoding.PEM))
    with with_password(tmp_path / "registry", authority).running() as registry:
        reference = f"{registry.host}/plant/minimal:1"
        out = ["--out", str(tmp_path / "out.ta"), "--ca", str(ca)]
        assert run(["ta", "push", str(package.path), reference, "--ca", str(ca)]) == 1
        assert "docker login" in capsys.readouterr().err
        assert run(["ta", "push", str(package.path), reference]) == 1
        assert "--ca" in capsys.readouterr().err

        monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
        login = ["--username", USER, "--password-stdin", "--ca", str(ca)]
        assert run(["ta", "push", str(package.path), reference, *login]) == 0

        configuration = no_docker_configuration / "config.json"
        secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        configuration.write_text(json.dumps({"auths": {registry.host: {"auth": secret}}}))
        configuration.chmod(0o600)
        assert run(["ta", "pull", reference, *out]) == 0
        configuration.chmod(0o644)
        assert run(["ta", "pull", reference, *out]) == 1
        assert f"chmod o= {configuration}" in capsys.readouterr().err
