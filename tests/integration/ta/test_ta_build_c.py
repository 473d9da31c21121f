"""`edgeclave ta build` of C: the same bytes everywhere, and errors in terms of the developer's own sources."""

from __future__ import annotations

import shutil
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeclave.cli.main import run
from edgeclave.cli.ta import app
from edgeclave.errors import EdgeclaveError
from edgeclave.ta.build import build_c, build_wasm, c, language_of
from edgeclave.ta.core_module import read_core_module
from edgeclave.ta.package import read_package
from edgeclave.ta.signature import verify_package
from tests.fixtures.builds import TRUSTED_APPS, build_package

PROBE = TRUSTED_APPS / "probe_c"
APP = """#include "edgeclave_ta.h"
#include "parts/part.h"

static ec_status where(ec_json payload, ec_writer *reply) {
    (void)payload;
    ec_write_text(reply, ec_from(__FILE__));
    ec_write_integer(reply, part());
    return EC_OK;
}

EC_METHODS({"where", where})
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project")


def make_project(folder: Path) -> Path:
    """Two sources, one in a folder of its own, and what is not to be built."""
    for name, text in {
        "app.c": APP,
        "parts/part.c": '#include "parts/part.h"\n\nint part(void) { return 7; }\n',
        "parts/part.h": "int part(void);\n",
        "tests/test.c": "this is not built\n",
        "build/old.c": "this is not built\n",
        ".hidden/x.c": "this is not built\n",
        "ta.toml": 'name = "c-app"\nversion = "1.0.0"\nproduct_id = 1\nsecurity_version = 1\n[methods.where]\n',
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def refusal(folder: Path) -> EdgeclaveError:
    with pytest.raises(EdgeclaveError) as error:
        build_wasm(folder, folder / "out.wasm")
    assert error.value.advice
    assert not (folder / "out.wasm").exists()
    return error.value


def test_two_fresh_folders_give_the_same_bytes_and_the_same_unique_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    for where in ("one", "another/much/longer/path"):
        folder = make_project(tmp_path / where)
        # As on another machine: nothing compiled before, another home, another time.
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / where / ".cache"))
        build_wasm(folder, folder / "out.wasm")
        built.append((folder / "out.wasm").read_bytes())
        time.sleep(1.1)
    assert built[0] == built[1]
    assert str(tmp_path).encode() not in built[0]
    assert b"\0app.c\0" in built[0], "__FILE__ is relative"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "third"))
    packages = [build_package(make_project(tmp_path / name), tmp_path / "keys-of-one-signer") for name in "ab"]
    assert len({package.unique_id for package in packages}) == 1


def test_a_module_imports_only_what_it_uses(project: Path) -> None:
    build_wasm(project, project / "out.wasm")
    module = read_core_module((project / "out.wasm").read_bytes())
    assert module.imports == []
    assert set(module.exports) == {"memory", "invoke", "cabi_realloc", "cabi_post_invoke"}


def test_the_command_builds_signs_and_inspects_c(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = str(project.parent / "keys")
    assert run(["ta", "build", str(project)]) == 0
    assert "compiling C" in capsys.readouterr().err
    assert run(["ta", "sign", str(project), "--key", "developer", "--keys", keys]) == 0
    package = project / "build" / "c-app.ta"
    assert run(["ta", "inspect", str(package)]) == 0
    assert verify_package(read_package(package)).identity.unique_id.hex() in capsys.readouterr().out


def test_warnings_are_shown_and_do_not_stop(project: Path) -> None:
    (project / "app.c").write_text(APP.replace("(void)payload;", "int unused;"))
    said: list[str] = []
    build_wasm(project, project / "out.wasm", said.append)
    assert any("app.c:5:9: warning: unused variable" in line for line in said)


@pytest.mark.parametrize(
    ("file", "old", "new", "says", "line"),
    [
        pytest.param("app.c", "return EC_OK;", "return EC_OK", "expected ';'", "app.c:8:17", id="a syntax error"),
        pytest.param(
            "parts/part.c", "7", "seven", "undeclared identifier 'seven'", "parts/part.c:3:25", id="in a part"
        ),
        pytest.param(
            "parts/part.h", "void", "voyd", "parameter list without types", "parts/part.h:1:10", id="in a header"
        ),
        pytest.param(
            "app.c", '"parts/part.h"', "<stdio.h>", "'stdio.h' file not found", "app.c:2:10", id="a C library"
        ),
        pytest.param("app.c", "ec_from(__FILE__)", "1", "passing 'int'", "app.c:6:26", id="a wrong type"),
        pytest.param("app.c", "__FILE__", "__TIME__", "time macro is not reproducible", "app.c:6:34", id="a clock"),
    ],
)
def test_what_the_compiler_refuses_names_the_line(
    project: Path, file: str, old: str, new: str, says: str, line: str
) -> None:
    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new, 1))
    error = refusal(project)
    assert error.code == "source-fails"
    assert says in error.what
    assert error.where == str(project / line)


def test_a_function_that_nothing_defines_is_named(project: Path) -> None:
    (project / "parts" / "part.c").write_text("int malloc(int);\nint part(void) { return malloc(1); }\n")
    error = refusal(project)
    assert (error.code, error.where) == ("source-fails", str(project))
    assert "malloc" in error.what


@pytest.mark.parametrize(
    ("name", "text", "code", "says"),
    [
        pytest.param(
            "extra.c",
            '__attribute__((import_module("env"), import_name("f"))) void f(void);\n'
            '__attribute__((export_name("g"))) void g(void) { f(); }\n',
            "import-refused",
            "env f",
            id="an import of its own",
        ),
        pytest.param("app.py", "", "two-languages", "one language", id="two languages"),
        pytest.param("app.c", "int nothing;\n", "source-fails", "ec_method", id="no table of methods"),
    ],
)
def test_what_is_no_trusted_application_is_refused(project: Path, name: str, text: str, code: str, says: str) -> None:
    (project / name).write_text(text)
    error = refusal(project)
    assert error.code == code
    assert says in error.what


def test_a_folder_without_sources(tmp_path: Path) -> None:
    assert refusal(tmp_path).code == "no-source"
    with pytest.raises(EdgeclaveError) as error:
        build_c(tmp_path, tmp_path / "out.wasm")
    assert error.value.code == "no-source"


def test_names_that_look_like_options_are_sources(project: Path) -> None:
    shutil.move(project / "parts" / "part.c", project / "-o.c")
    build_wasm(project, project / "out.wasm")
    assert language_of(project) == "c"


def test_a_missing_compiler_is_a_clear_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(_: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr(c, "version", not_installed)
    ended = CliRunner().invoke(app, ["build", str(project)]).exception
    assert isinstance(ended, EdgeclaveError)
    assert (ended.code, ended.advice) == ("missing-extra", "install `edgeclave[build-c]`")


def test_a_user_without_a_home_has_the_cache_beside_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert c.compiler_cache().parent == tmp_path / ".edgeclave" / "cache" / "edgeclave"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert c.compiler_cache().parent == tmp_path / "own" / "edgeclave"


def test_an_unusable_cache_is_a_clear_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "in-the-way").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(project / "in-the-way"))
    error = refusal(project)
    assert error.code == "build-not-written"
    assert "in-the-way" in error.where
