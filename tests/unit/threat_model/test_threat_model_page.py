"""docs/threat-model.md: each attack has a number of its own and tests that are there.

Whether they ran and passed is asked at the end of a whole run (tests/fixtures/attack_coverage.py).
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.fixtures.attack_coverage import named_tests

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "threat-model.md").read_text()
ATTACKS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:4] == "| T-"]


def _tests_of(path: Path) -> set[str]:
    """`test_name` and `TestClass::test_name` of a file."""

    def inside(node: ast.Module | ast.ClassDef, prefix: str) -> set[str]:
        found = set()
        for each in node.body:
            if isinstance(each, ast.ClassDef):
                found |= inside(each, f"{prefix}{each.name}::")
            elif isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_"):
                found.add(prefix + each.name)
        return found

    return inside(ast.parse(path.read_text()), "")


def test_each_attack_has_a_number_of_its_own() -> None:
    """Numbers stay when attacks are added elsewhere on the page."""
    numbers = [attack[0] for attack in ATTACKS]
    assert len(numbers) >= 40
    assert sorted(numbers) == [f"T-{number:03}" for number in range(1, len(numbers) + 1)]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack[0])
def test_an_attack_says_what_stops_it_and_what_tries_it(attack: list[str]) -> None:
    _, what, stops, tests, _ = attack
    assert what.endswith(".")
    assert stops
    for test in tests.split("<br>"):
        (name,) = named_tests(test)
        assert test == f"`{name}`", f"{test} is no node id without parameters"
        path, _, inside = name.partition("::")
        assert (ROOT / path).is_file(), f"there is no {path}"
        assert inside in _tests_of(ROOT / path), f"there is no test {name}"


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    for place in re.findall(r"\]\(#([a-z-]+)\)", PAGE):
        assert f"## {place.replace('-', ' ')}" in PAGE.lower()
