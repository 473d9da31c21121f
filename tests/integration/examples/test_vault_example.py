"""The vault of `examples/`: what its README shows is what happens."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tests.fixtures.builds import REPOSITORY, build_package

VAULT = REPOSITORY / "examples" / "vault"


@pytest.mark.slow
@pytest.mark.timeout(300)  # builds and compiles two Python trusted applications where nothing is cached
async def test_the_upgrade_prints_what_the_readme_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (build_package(VAULT / name, tmp_path) for name in ("version-1", "version-2"))
    assert first.signer_id == second.signer_id
    assert first.unique_id != second.unique_id
    upgrade = runpy.run_path(str(VAULT / "upgrade.py"), run_name="upgrade")["upgrade"]
    await upgrade(tmp_path, first.path, second.path)
    shown = re.search(r"```text\n(.*?)```", (VAULT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    assert capsys.readouterr().out == shown[1]
