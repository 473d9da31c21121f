"""`ta inspect` of a package, of bare code and of a project: what would stop it, where. `ta keys`: who signed what."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from wasmtime import wat2wasm

from edgeclave.cli.main import run
from edgeclave.ta.source import load_source

OTHER_WORLD = '(component (import "edgeclave:ta/tee@{version}" (instance)))'
FILES = '(component (import "wasi:filesystem/preopens@0.2.0" (instance)) (import "my:own/thing" (instance)))'


def inspect(target: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["ta", "inspect", str(target), "--json"]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    return shown


def obstacles(shown: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(one["where"], one["effect"], one["code"]) for one in shown["obstacles"]]


def rewrite(project: Path, old: str, new: str) -> None:
    text = (project / "ta.toml").read_text()
    assert old in text
    (project / "ta.toml").write_text(text.replace(old, new))


def test_a_project_a_package_and_its_code_agree(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unsigned = inspect(project, capsys)
    assert run(["ta", "sign", str(project)]) == 0
    package = inspect(project / "build" / "meter.ta", capsys)
    code = inspect(project / "build" / "meter.wasm", capsys)
    assert unsigned["unique_id"] == package["identity"]["unique_id"]
    assert unsigned["manifest"] == package["manifest"]
    assert unsigned["imports"] == package["imports"] == code["imports"]
    assert unsigned["wasm_digest"] == code["wasm_digest"]
    assert code["obstacles"] == []
    assert obstacles(package) == obstacles(unsigned) == [("each device", "emitting is refused", "")]
    for target in ("", "build/meter.ta", "build/meter.wasm"):
        assert run(["ta", "inspect", str(project / target)]) == 0
        assert "imports" in capsys.readouterr().out


def test_a_project_that_is_not_built(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(project / "build")
    shown = inspect(project, capsys)
    assert ("here", "does not load", "no-wasm") in obstacles(shown)
    assert "imports" not in shown
    assert run(["ta", "inspect", str(project)]) == 0
    assert "run `edgeclave ta build`" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "obstacle"),
    [
        pytest.param(
            "[outputs.out]",
            "[methods.ask]\nchannel = 'confidential'\n[outputs.out]",
            ("everywhere", "calls are refused", "403"),
            id="a channel that this release has not",
        ),
        pytest.param(
            "product_id = 5",
            "product_id = 5\ndebug = true",
            ("production policies", "readers refuse it", "debug-trusted-app"),
            id="debug",
        ),
        pytest.param(
            "product_id = 5",
            "product_id = 5\nstorage_protection = 'rollback-protected'",
            ("emulator", "does not load", "storage-protection-unavailable"),
            id="storage that the platform cannot protect",
        ),
        pytest.param(
            '"emit", ', "", ("everywhere", "emitting is refused", ""), id="an output, and emitting is not granted"
        ),
        pytest.param(
            '[outputs.out]\nrecipient_authority = "reader-authority"',
            "",
            ("everywhere", "emitting is refused", ""),
            id="emitting is granted, and no output declared",
        ),
    ],
)
def test_what_the_manifest_says_would_stop_it(
    project: Path, old: str, new: str, obstacle: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert obstacle not in obstacles(inspect(project, capsys))
    rewrite(project, old, new)
    assert obstacle in obstacles(inspect(project, capsys))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(OTHER_WORLD.format(version="1.0.0"), ["invoke"], id="nothing to call"),
        pytest.param(
            OTHER_WORLD.format(version="2.0.0"), ["edgeclave:ta/tee@2.0.0", "invoke"], id="another version of the WIT"
        ),
        pytest.param(FILES, ["my:own/thing", "invoke"], id="an import that no TEE offers"),
    ],
)
def test_what_the_code_says_would_stop_it(
    text: str, said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "code.wasm"
    path.write_bytes(bytes(wat2wasm(text)))
    shown = inspect(path, capsys)
    assert [one["effect"] for one in shown["obstacles"]] == ["does not load"] * len(said)
    assert all(word in one["what"] for word, one in zip(said, shown["obstacles"], strict=True))


CORE = """
(module
  (import "edgeclave:ta/tee@{version}" "put" (func (param i32 i32 i32 i32 i32)))
  (import "edgeclave:ta/tee@{version}" "emulated" (func (result i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
  (func (export "{entry}") (param i32 i32 i32 i32) (result i32) unreachable))
"""


def core_module(version: str = "1.0.0", entry: str = "invoke") -> bytes:
    return bytes(wat2wasm(CORE.format(version=version, entry=entry)))


def test_what_a_core_module_uses_must_be_granted(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "build" / "meter.wasm").write_bytes(core_module())
    assert ("everywhere", "the service is refused", "") not in obstacles(inspect(project, capsys))
    rewrite(project, '"storage", ', "")
    shown = inspect(project, capsys)
    assert shown["form"] == "core module"
    assert [one["what"] for one in shown["obstacles"] if one["effect"] == "the service is refused"] == [
        "it uses put, and the service storage is not granted"
    ]
    assert run(["ta", "sign", str(project)]) == 0
    assert obstacles(inspect(project / "build" / "meter.ta", capsys)) == obstacles(shown)


@pytest.mark.parametrize(
    ("wasm", "code"),
    [
        pytest.param(core_module(version="2.0.0"), "import-refused", id="another version of the WIT"),
        pytest.param(core_module(entry="main"), "no-invoke", id="nothing to call"),
    ],
)
def test_a_core_module_that_would_not_load(
    wasm: bytes, code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "code.wasm").write_bytes(wasm)
    assert obstacles(inspect(tmp_path / "code.wasm", capsys)) == [("everywhere", "does not load", code)]


def test_keys_and_what_they_signed(
    project: Path, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["ta", "keys"]) == 0
    assert "ta sign" in capsys.readouterr().err
    assert run(["ta", "sign", str(project), "--json"]) == 0
    signer = json.loads(capsys.readouterr().out)["signer_id"]
    assert run(["ta", "sign", str(project), "--key", "other", "--out", str(tmp_path / "other.ta")]) == 0
    (tmp_path / "broken.ta").write_bytes(b"no package")
    capsys.readouterr()
    assert run(["ta", "keys", "--json"]) == 0
    listed = {key["name"]: key for key in json.loads(capsys.readouterr().out)}
    assert listed.keys() == {"developer", "other"}  # an authority is no signing key
    assert listed["developer"]["signer_id"] == signer
    assert listed["developer"]["packages"] == ["meter/build/meter.ta"]
    assert listed["other"]["packages"] == ["other.ta"]
    assert listed["other"]["private"] is True
    assert run(["ta", "keys"]) == 0
    out = capsys.readouterr().out
    assert "a root of its own" in out
    assert "PRIVATE" not in out


def test_the_project_of_these_tests_is_right(project: Path, keys: Path) -> None:
    assert load_source(project, keys).name == "meter"
