"""`ta new`: what is made, what is refused, and that templates are part of the wheel."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgeclave.cli.main import run
from edgeclave.develop.templates import Language
from edgeclave.ta.source import load_source

REPOSITORY = Path(__file__).parents[3]
LANGUAGES = [
    language.value for language in Language if (REPOSITORY / "edgeclave/develop/templates" / language).is_dir()
]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_project_is_complete(
    language: str, tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["ta", "new", "flow-meter2", "--lang", language]) == 0
    assert "edgeclave ta test flow-meter2" in capsys.readouterr().out
    folder = tmp_path / "flow-meter2"
    assert load_source(folder, keys).name == "flow-meter2"
    for name in (".gitignore", "README.md", ".vscode/launch.json", ".vscode/tasks.json", "tests"):
        assert (folder / name).exists()
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    texts = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    assert not any("{{" in text for text in texts)
    assert not list(folder.rglob("dot-*"))


@pytest.mark.parametrize(
    "name",
    ["", "Meter", "2meter", "-meter", "me ter", "meter\n", "../meter", "m" * 64, "mètre", "a/b"],
)
def test_names_that_no_manifest_takes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ta", "new", "--dir", str(tmp_path / "made"), "--", name]) == 1
    assert "[bad-name]" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full, file, empty = tmp_path / "full", tmp_path / "file", tmp_path / "empty"
    full.mkdir()
    (full / "mine").write_text("kept")
    file.write_text("kept")
    empty.mkdir()
    for target in (full, file):
        assert run(["ta", "new", "meter", "--dir", str(target)]) == 1
        assert "[folder-exists]" in capsys.readouterr().err
    assert (full / "mine").read_text() == file.read_text() == "kept"
    assert [path.name for path in full.iterdir()] == ["mine"]
    assert run(["ta", "new", "meter", "--dir", str(empty)]) == 0
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(["ta", "new", "meter", "--dir", str(tmp_path / "file" / "meter")]) == 1
    assert "[not-written]" in capsys.readouterr().err


SERVICES = """
from edgeclave_ta import TrustedApp, tee

app = TrustedApp()

@app.method
def use_every_service(nonce: str) -> list[str | int | bool | None]:
    sealed: str = tee.seal("secret", context="here", policy="product")
    opened: tee.Unsealed = tee.unseal(sealed, context="here")
    tee.put("key", opened.plaintext)
    kept: str | None = tee.get("key")
    tee.delete("key")
    sequence: int = tee.emit("records", {"kept": kept})
    evidence: bytes = tee.evidence(nonce.encode())
    count: int = tee.increment("calls")
    drawn: bytes = tee.random(8)
    level: tee.StorageLevel = tee.storage_protection()
    caller: tee.Caller = tee.caller()
    emulated: bool = tee.emulated()
    milliseconds: int = tee.host_time()
    tee.log(tee.INFO, caller.name)
    sealer: str = opened.sealed_by.unique_id
    return [kept, sequence, evidence.hex(), count, drawn.hex(), level, emulated, milliseconds, sealer]
"""


def test_the_template_and_every_service_are_clean_for_a_strict_type_checker(tmp_path: Path) -> None:
    assert run(["ta", "new", "meter", "--dir", str(tmp_path / "meter")]) == 0
    (tmp_path / "meter" / "services.py").write_text(SERVICES)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "app.py", "services.py", "tests"],
        cwd=tmp_path / "meter",
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_the_wheel_holds_templates_and_the_guest_sdk_by_its_own_name(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    templates = REPOSITORY / "edgeclave" / "develop" / "templates"
    for path in templates.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(REPOSITORY).as_posix() in names
    assert {"edgeclave_ta/__init__.py", "edgeclave_ta/py.typed"} <= names
    assert "edgeclave/ta/guest/python/edgeclave_ta/__init__.py" in names
    assert "edgeclave/ta/build/__init__.py" in names  # by its name it could be taken for build output


def test_the_commands_it_prints_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["ta", "new", "meter", "--dir", "my $HOME; it's"]) == 0
    first = capsys.readouterr().out.splitlines()[1]
    assert shlex.split(first) == ["edgeclave", "ta", "test", "my $HOME; it's"]
