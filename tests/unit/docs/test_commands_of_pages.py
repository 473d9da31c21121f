"""No page tells its reader to type what no test has typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FENCE = re.compile(r"^```(\w+)[^\n]*\n([^\n]*)", re.MULTILINE)
TYPED = {"console", "sh", "bash", "shell"}
NOT_CHECKED = ("# On Azure, not checked here", "# On the gateway, not checked here")
BY_ITS_OWN_TEST = {
    "abi.md": "tests/integration/enclave/test_rust_example.py",
    "developing.md": "tests/e2e/test_visual_studio_code.py",
    "images.md": "tests/containers/test_images.py",
    "simulator.md": "tests/containers/test_sim_up_containers.py",
}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_page_with_commands_is_followed_by_a_test(page):
    blocks = FENCE.findall(page.read_text())
    typed = {kind for kind, first in blocks if kind in TYPED and not first.startswith(NOT_CHECKED)}
    if page.name in BY_ITS_OWN_TEST:
        assert page.name in (ROOT / BY_ITS_OWN_TEST[page.name]).read_text()
    elif typed:
        assert typed == {"console"}, "the reader of tests/fixtures/console.py follows no other blocks"
        tests = [test for test in (ROOT / "tests" / "e2e").glob("test_*.py") if f'"{page.name}"' in test.read_text()]
        assert any(".follow" in test.read_text() for test in tests)
