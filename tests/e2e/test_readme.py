"""The README's "Step by step", done literally. Its first two commands are `test_demo.py` and this very run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.suite import ROOT
from tests.fixtures.console import Reader


@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_step_by_step(tmp_path: Path) -> None:
    for name in ("modules", "deployment.template.json", ".env.example"):
        (tmp_path / name).symlink_to(ROOT / name)
    page = tmp_path / "step-by-step.md"
    text = (ROOT / "README.md").read_text()
    page.write_text(text[text.index("## Step by step") : text.index("## Where next")])
    with Reader(tmp_path) as reader:
        assert reader.follow(page) >= 12
