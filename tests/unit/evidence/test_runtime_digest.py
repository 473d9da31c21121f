"""The runtime reference value covers what the enclave loads, and nothing else."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeclave
from edgeclave.evidence.runtime import runtime_digest, runtime_files

ROOT = Path(edgeclave.__file__).parent
ONLY_FOR_VERIFIERS = (
    "evidence/verifier.py",
    "evidence/appraisal.py",
    "evidence/policy.py",
    "evidence/kinds.py",
    "evidence/intel.py",
    "evidence/maa.py",
    "results/stream.py",
    "results/matching.py",
    "ta/signing.py",
    "ta/build/c.py",
    "ta/guest/python/edgeclave_ta/tee.py",
    "cli/main.py",
)


def imported_by(path: Path) -> Iterator[Path]:
    """Files of ours that a file imports, wherever in it, and the packages around them."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] != "edgeclave":
                continue
            yield from (ROOT.joinpath(*parts[1:size], "__init__.py") for size in range(1, len(parts) + 1))
            yield ROOT.joinpath(*parts[1:]).with_suffix(".py")


def test_it_is_exactly_what_the_enclave_imports():
    left, reached = list((ROOT / "enclave").glob("*.py")), set()
    while left:
        path = left.pop()
        if path.exists() and path not in reached:
            reached.add(path)
            left += imported_by(path)
    wit = (ROOT / "ta" / "wit").glob("*.wit")
    assert set(runtime_files()) == {path.relative_to(ROOT).as_posix() for path in (*reached, *wit)}


def test_what_only_others_use_is_left_out():
    assert not set(ONLY_FOR_VERIFIERS) & set(runtime_files())
    assert all((ROOT / path).exists() for path in ONLY_FOR_VERIFIERS)


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    copy = tmp_path_factory.mktemp("release") / "edgeclave"
    for path in (*runtime_files(), *ONLY_FOR_VERIFIERS):
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy / path)
    return copy


def python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    paths = f"import sys; sys.path.insert(0, {str(folder)!r}); "
    return subprocess.run([sys.executable, "-I", "-c", paths + code], capture_output=True, text=True, check=False)


def digest_of(release: Path) -> str:
    done = python(release.parent, "from edgeclave.evidence.runtime import runtime_digest as d; print(d().hex())")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_is_the_same_wherever_the_release_is_installed(release):
    assert digest_of(release) == runtime_digest().hex()


def test_a_change_for_verifiers_leaves_it(release):
    for path in ONLY_FOR_VERIFIERS:
        (release / path).write_text("changed = True\n")
    assert digest_of(release) == runtime_digest().hex()


@pytest.mark.parametrize("path", ["enclave/server.py", "evidence/eat.py", "cose.py", "ta/wit/edgeclave-ta.wit"])
def test_a_change_inside_the_enclave_changes_it(release, path):
    kept = (release / path).read_bytes()
    (release / path).write_bytes(kept + b"\n")
    assert digest_of(release) != runtime_digest().hex()
    (release / path).write_bytes(kept)


def test_a_new_file_inside_the_enclave_changes_it(release):
    new = release / "enclave" / "new.py"
    new.write_text("")
    assert digest_of(release) != runtime_digest().hex()
    new.unlink()


class TestLoadedCode:
    """What the enclave asks of itself before it runs a trusted application; every test with an enclave passes it."""

    REQUIRE = "from edgeclave.evidence.runtime import require_measured; require_measured()"

    def test_what_the_enclave_loads_is_measured(self):
        imports = "".join(
            f"import edgeclave.enclave.{path.stem}; "
            for path in (ROOT / "enclave").glob("*.py")
            if path.stem not in ("__main__", "__init__")
        )
        done = python(ROOT.parent, imports + self.REQUIRE)
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("name", ["edgeclave.evidence.verifier", "edgeclave.keys", "edgeclave.results.stream"])
    def test_anything_else_of_ours_is_refused(self, name):
        done = python(ROOT.parent, f"import {name}; {self.REQUIRE}")
        assert done.returncode == 1
        assert "[unmeasured-code]" in done.stderr
        assert name.removeprefix("edgeclave.").replace(".", "/") in done.stderr

    def test_a_measured_file_in_another_place_is_refused(self, release):
        code = f"import edgeclave.evidence; edgeclave.evidence.__path__.insert(0, {str(release / 'evidence')!r}); "
        done = python(ROOT.parent, code + "import edgeclave.evidence.tee; " + self.REQUIRE)
        assert "[unmeasured-code]" in done.stderr
