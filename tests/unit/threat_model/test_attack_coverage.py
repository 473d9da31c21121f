"""A run of all tests fails when a test that the threat model names did not pass, and a run of a part never does."""

from __future__ import annotations

import pytest

from tests.fixtures.attack_coverage import named_tests, without_case

pytest_plugins = "pytester"

PAGE = """
| T-001 | an attack | refused | `tests/test_it.py::test_one`, `tests/test_it.py::TestMore::test_two` |
| T-002 | another | refused | `tests/test_it.py::test_one` |
"""
GOOD = """
import pytest

@pytest.mark.parametrize("case", [1, 2])
def test_one(case): pass

@pytest.mark.xdist_group("slow ones")
class TestMore:
    def test_two(self): pass

def test_of_no_attack(): pass
"""
CONFTEST = """
from pathlib import Path
from tests.fixtures.attack_coverage import AttackCoverage

def pytest_configure(config):
    config.pluginmanager.register(AttackCoverage(Path(__file__).with_name("page.md")))
"""
SAYS = "*page.md names tests that did not pass*"


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take most of the time
    (pytester.path / "tests").mkdir()
    pytester.makeconftest(CONFTEST)
    (pytester.path / "page.md").write_text(PAGE)
    pytester.makeini("[pytest]\ntestpaths = tests\naddopts = --import-mode=importlib -p no:cacheprovider\n")
    write(pytester, GOOD)
    return pytester


def write(project: pytest.Pytester, tests: str) -> None:
    (project.path / "tests" / "test_it.py").write_text(tests)


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_subprocess(*arguments)


def test_the_names_of_a_page() -> None:
    assert named_tests(PAGE) == ["tests/test_it.py::test_one", "tests/test_it.py::TestMore::test_two"]
    assert named_tests("`tests/test_it.py`, tests/test_it.py::test_one, `tests/test_it.py::test_one[1]`") == []


@pytest.mark.parametrize("more", ["", "[1]", "[a::b@c[0]]", "@group", "[1]@group"])
def test_cases_belong_to_their_test(more: str) -> None:
    assert without_case("tests/test_it.py::TestMore::test_two" + more) == "tests/test_it.py::TestMore::test_two"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="as make test does"),
        pytest.param(["tests"], id="by the name of the folder"),
        pytest.param(["-p", "xdist", "-n", "2", "--dist", "loadgroup"], id="in two processes"),
    ],
)
class TestWholeRun:
    def test_all_passed(self, project: pytest.Pytester, arguments: list[str]) -> None:
        result = run(project, *arguments)
        assert result.ret == pytest.ExitCode.OK
        result.stdout.no_fnmatch_line("*page.md*")

    def test_one_is_gone(self, project: pytest.Pytester, arguments: list[str]) -> None:
        write(project, GOOD.replace("test_two", "test_three"))
        result = run(project, *arguments)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines([SAYS, "tests/test_it.py::TestMore::test_two: it is not there*"])
        result.stdout.no_fnmatch_line("tests/test_it.py::test_one*")


LEFT_OUT = "    def test_two(self): __import__('pytest').skip('no gdb')"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param(
            "def test_one(case): pass", "def test_one(case): assert case == 1", "test_one: failed, passed", id="a case"
        ),
        pytest.param("(self): pass", "(self, nothing): pass", "test_two: failed", id="before it began"),
    ],
)
def test_a_failure_is_listed(project: pytest.Pytester, old: str, new: str, said: str) -> None:
    write(project, GOOD.replace(old, new))
    result = run(project)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([SAYS, f"*{said}"])


def test_one_case_left_out_is_enough(project: pytest.Pytester) -> None:
    write(project, GOOD.replace("def test_one(case): pass", "def test_one(case): case == 1 or pytest.skip('old')"))
    assert run(project).ret == pytest.ExitCode.OK


def test_left_out_on_this_machine(project: pytest.Pytester) -> None:
    write(project, GOOD.replace("    def test_two(self): pass", LEFT_OUT))
    result = run(project)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*page.md that were not tried on this machine*", "*TestMore::test_two"])


def test_left_out_in_ci(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    write(project, GOOD.replace("    def test_two(self): pass", LEFT_OUT))
    result = run(project)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([SAYS, "*TestMore::test_two: skipped"])


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["-k", "one"], id="a name"),
        pytest.param(["-m", "not slow"], id="a mark"),
        pytest.param(["tests/test_it.py"], id="a file"),
        pytest.param(["tests/test_it.py::test_one"], id="a test"),
        pytest.param(["--deselect", "tests/test_it.py::TestMore"], id="all but a test"),
        pytest.param(["--ignore", "tests/other"], id="all but a folder"),
        pytest.param(["--collect-only"], id="a list of tests"),
    ],
)
def test_a_part_says_nothing_of_the_page(project: pytest.Pytester, arguments: list[str]) -> None:
    write(project, GOOD.replace("test_two", "test_three"))
    result = run(project, *arguments)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*page.md*")


def test_a_run_that_was_stopped_says_nothing_of_the_page(project: pytest.Pytester) -> None:
    write(project, GOOD.replace("(case): pass", "(case): assert False"))
    result = run(project, "-x")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.no_fnmatch_line("*page.md*")
