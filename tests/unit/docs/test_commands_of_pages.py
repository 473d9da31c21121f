"""No page tells its reader to type what no test has typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FENCE = re.compile(r"^```(\w+)", re.MULTILINE)
TYPED = {"console", "sh", "bash", "shell"}
BY_ITS_OWN_TEST = {"abi.md": "tests/integration/enclave/test_rust_example.py"}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_page_with_commands_is_followed_by_a_test(page):
    typed = TYPED & set(FENCE.findall(page.read_text()))
    if page.name in BY_ITS_OWN_TEST:
        assert page.name in (ROOT / BY_ITS_OWN_TEST[page.name]).read_text()
    elif typed:
        assert typed == {"console"}, "the reader of tests/fixtures/console.py follows no other blocks"
        tests = [test for test in (ROOT / "tests" / "e2e").glob("test_*.py") if f'"{page.name}"' in test.read_text()]
        assert any(".follow" in test.read_text() for test in tests)
