"""docs/adding-a-tee.md works: followed literally in a copy of the checkout, with the made-up TEE of the page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "adding-a-tee.md").read_text()
WRITE_REPORT = """
from pathlib import Path
from edgeclave.keys import public_pem
from tests.fixtures.abacus_bench import AbacusBench
bench = AbacusBench()
Path("report.bin").write_bytes(bench.quote(bytes(64)))
Path("foreign.bin").write_bytes(bench.quote(bytes(64), foreign_runtime=True))
Path("chip.pub.pem").write_bytes(public_pem(bench.key.public_key()))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout in which every step of the page was done."""
    copy = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("edgeclave", "tests/fixtures"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    suite = "tests/unit/evidence/test_conformance.py"
    (copy / suite).parent.mkdir(parents=True)
    shutil.copy(ROOT / suite, copy / suite)
    for path, language, block in steps():
        if language == "diff":
            apply(copy / path, block)
        else:
            (copy / path).write_text(block)
    return copy


def steps():
    """(file, language, block) for each block of the page that belongs to a file; the policy goes to policy.toml."""
    found = []
    for match in re.finditer(r"```(python|diff|toml)\n(.*?)```", PAGE, re.DOTALL):
        named = re.findall(r"`((?:edgeclave|tests)/[a-z_/]+\.py)`", PAGE[: match.start()])
        found.append((named[-1] if match[1] != "toml" else "policy.toml", match[1], match[2]))
    return found


def apply(path, diff):
    """Replaces each run of `-` lines by the `+` lines behind it; a line may be the beginning of a longer one."""
    text = path.read_text()
    for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", diff, re.MULTILINE):
        before, after = ("\n".join(line[1:] for line in part.splitlines()) for part in (old, new))
        assert text.count(before) == 1, f"{path.name} has no single {before!r}"
        text = text.replace(before, after)
    path.write_text(text)


def run(checkout, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_steps_of_the_page():
    assert [language for _, language, _ in steps()] == ["python", "diff", "python", "diff", "toml"]


def test_the_made_up_tee_passes_the_conformance_suite(checkout):
    suite = "tests/unit/evidence/test_conformance.py"
    options = ["-q", "--import-mode=importlib", "-p", "no:cacheprovider", "-k", "abacus or has_a_bench"]
    ran = run(checkout, "-m", "pytest", *options, suite)
    assert ran.returncode == 0, ran.stdout[-3000:]
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed
    assert int(passed[1]) > 25


def test_its_reports_are_recognised_and_judged_by_the_policy_of_the_page(checkout):
    assert run(checkout, "-c", WRITE_REPORT).returncode == 0
    good = run(checkout, "-m", "edgeclave", "verify", "report.bin", "--policy", "policy.toml")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "raw Abacus evidence" in good.stdout
    foreign = run(checkout, "-m", "edgeclave", "policy", "explain", "foreign.bin", "--policy", "policy.toml")
    assert foreign.returncode == 1
    assert "wrong-runtime" in foreign.stdout
