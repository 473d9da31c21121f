"""`edgeclave ta` from sources to a verified package, as a developer runs it."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeclave.cli.main import run
from edgeclave.cli.ta import app
from edgeclave.errors import EdgeclaveError
from edgeclave.ta.build.output import write_package
from edgeclave.ta.package import read_package
from tests.fixtures.builds import TRUSTED_APPS, BuiltPackage, built_wasm, probe_package

PROBE = TRUSTED_APPS / "probe"


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> BuiltPackage:
    return probe_package(tmp_path_factory.mktemp("probe"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the probe's sources, and the keys it names in `keys` beside it."""
    shutil.copytree(PROBE, tmp_path / "probe", ignore=shutil.ignore_patterns("build"))
    assert run(["keys", "new", "reader-authority", "--keys", str(tmp_path / "keys")]) == 0
    return tmp_path / "probe"


def sign(project: Path, *more: str) -> list[str]:
    return ["sign", str(project), "--key", "developer", "--keys", str(project.parent / "keys"), *more]


def refusal(command: list[str]) -> EdgeclaveError:
    """The error a command ends with."""
    ended = CliRunner().invoke(app, command).exception
    assert isinstance(ended, EdgeclaveError), ended
    assert ended.advice
    return ended


@pytest.mark.slow
def test_build_sign_inspect(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = project.parent / ".env"
    env.write_text("OTHER=kept\n")
    assert run(["ta", "build", str(project)]) == 0
    assert "importing the application" in capsys.readouterr().err
    assert run(["ta", *sign(project, "--env", str(env), "--json")]) == 0
    signed = json.loads(capsys.readouterr().out)

    assert stat.S_IMODE((project.parent / "keys" / "developer.key.pem").stat().st_mode) == 0o600
    variables = dict(line.split("=", 1) for line in env.read_text().splitlines() if "=" in line)
    assert variables["OTHER"] == "kept"
    assert {name: value.strip("\"'") for name, value in variables.items() if name.startswith("PROBE")} == {
        "PROBE_PACKAGE": signed["package"],
        "PROBE_DIGEST": signed["digest"],
        "PROBE_SIGNER": signed["signer_id"],
    }
    assert run(["ta", "inspect", signed["package"], "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["digest"] == signed["digest"]
    assert shown["identity"] == {
        "unique_id": signed["unique_id"],
        "signer_id": signed["signer_id"],
        "product_id": 7,
        "security_version": 2,
        "debug": False,
    }
    assert shown["signer"] == ["CN=developer"]
    assert "edgeclave:ta/tee@1.0.0" in shown["imports"]
    assert "invoke" in shown["exports"]
    assert "storage" in shown["grants"]

    assert run(["ta", *sign(project)]) == 0
    assert signed["signer_id"] in capsys.readouterr().out
    assert run(["ta", "inspect", signed["package"]]) == 0
    assert signed["unique_id"] in capsys.readouterr().out


def test_a_package_altered_after_signing(probe: BuiltPackage, tmp_path: Path) -> None:
    data = bytearray(probe.path.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "tampered.ta").write_bytes(data)
    assert refusal(["inspect", str(tmp_path / "tampered.ta")]).code == "wrong-digest"


def test_a_package_put_together_again_around_another_wasm(probe: BuiltPackage, tmp_path: Path) -> None:
    package = read_package(probe.path)
    write_package(tmp_path / "other.ta", package.wasm[:-1], package.signature, package.annotations)
    assert refusal(["inspect", str(tmp_path / "other.ta")]).code == "wrong-wasm"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "said", "line"),
    [
        pytest.param("x = 1\ny = x / 0", "ZeroDivisionError", "helper.py:2", id="an exception"),
        pytest.param("import sys; sys.exit(0)", "ends itself", "helper.py:1", id="an exit"),
        pytest.param("x = 1", "must define `app = TrustedApp()`", "app.py", id="no application"),
        pytest.param("import msgspec", "ModuleNotFoundError", "helper.py:1", id="a package of this machine"),
    ],
)
def test_an_application_that_fails_while_it_is_imported(project: Path, source: str, said: str, line: str) -> None:
    (project / "app.py").write_text("import helper\n")
    (project / "helper.py").write_text(source + "\n")
    error = refusal(["build", str(project)])
    assert error.code == "source-fails"
    assert said in error.what
    assert error.where == str(project / line)
    assert "Stack backtrace" not in str(error)
    assert not (project / "build").exists()


@pytest.mark.parametrize(
    ("old", "new", "path", "advice"),
    [
        pytest.param("product_id = 7", "product_id = 70000", "product_id", "correct", id="a number too large"),
        pytest.param("product_id = 7", "", "product_id", "add", id="a field is missing"),
        pytest.param(
            "product_id = 7", "productid = 7", "productid", "did you mean product_id", id="a field misspelled"
        ),
        pytest.param("memory_mib = 64", "memory_mb = 64", "limits.memory_mb", "memory_mib", id="a limit misspelled"),
        pytest.param("memory_mib = 64", "memory_mib = '64'", "limits.memory_mib", "correct", id="text for a number"),
        pytest.param('"log", ', '"files", ', "services", "correct", id="an unknown service"),
        pytest.param('channel = "confidential"', "channel = 1", "methods.confidential.channel", "", id="a channel"),
        pytest.param("[methods.fail]", '[methods."a b"]', "methods", "", id="a method name with a space"),
        pytest.param("reader-authority", "nobody", "outputs.out.recipient_authority", "keys new nobody", id="no key"),
        pytest.param("reader-authority", "../x", "outputs.out.recipient_authority", "letters", id="a path as key"),
        pytest.param(
            "accept_state_from_svn = 1", "accept_state_from_svn = 9", "accept_state", "above", id="later state"
        ),
        pytest.param('name = "probe"', "name = [", "", "not TOML", id="not TOML"),
        pytest.param(
            "[methods.log]", '[methods.log]\ninput_schema = "none.json"', "methods.log.input_schema", "", id="schema"
        ),
    ],
)
def test_a_broken_manifest(project: Path, old: str, new: str, path: str, advice: str) -> None:
    text = (project / "ta.toml").read_text()
    assert old in text
    (project / "ta.toml").write_text(text.replace(old, new, 1))
    error = refusal(sign(project, "--wasm", str(built_wasm(PROBE))))
    assert error.code == "bad-manifest"
    assert error.where.startswith(f"{project / 'ta.toml'}{': ' if path else ''}{path}")
    assert advice in f"{error.what}; {error.advice}"
    assert not (project / "build").exists()


def test_schemas_are_signed_with_the_manifest(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (project / "ta.toml").read_text()
    (project / "ta.toml").write_text(text.replace("[methods.log]", '[methods.log]\ninput_schema = "log.json"'))
    (project / "log.json").write_text('{"type": "object",\n "required": ["message"]}')
    command = sign(project, "--wasm", str(built_wasm(PROBE)), "--out", str(project / "p.ta"))
    assert run(["ta", *command]) == 0
    capsys.readouterr()
    assert run(["ta", "inspect", str(project / "p.ta"), "--json"]) == 0
    method = json.loads(capsys.readouterr().out)["manifest"]["methods"]["log"]
    assert method["input_schema"] == '{"required":["message"],"type":"object"}'


def test_what_is_not_there_or_not_what_it_should_be(project: Path, tmp_path: Path) -> None:
    core, text = tmp_path / "core.wasm", tmp_path / "text.wasm"
    core.write_bytes(b"\0asm\x01\0\0\0")
    text.write_text("hello")
    assert refusal(["build", str(tmp_path)]).code == "no-manifest"
    assert refusal(sign(project)).code == "no-wasm"
    assert refusal(sign(project, "--wasm", str(core))).code == "core-module-refused"
    assert "not WebAssembly" in refusal(sign(project, "--wasm", str(text))).what
    assert refusal(["inspect", str(tmp_path / "none.ta")]).code == "package-unreadable"
    (project / "app.py").unlink()
    assert refusal(["build", str(project)]).code == "no-source"


def test_a_certificate_of_another_key(project: Path) -> None:
    keys, wasm = project.parent / "keys", built_wasm(PROBE)
    one, two = (
        ["sign", str(project), "--key", key, "--keys", str(keys), "--wasm", str(wasm)] for key in ("one", "two")
    )
    assert run(["ta", *one]) == run(["ta", *two]) == 0
    shutil.copy(keys / "one.cert.pem", keys / "two.cert.pem")
    assert refusal(two).code == "bad-signing-certificate"
    (keys / "one.key.pem").unlink()
    assert "one.key.pem is missing" in refusal(one).what
    assert refusal([*one, "--key", "../one"]).code == "bad-key-name"
