"""What a person who joins relies on: links that lead somewhere, targets that are there, the same checks everywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.builds import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(?P<text>.*?)\s*$", re.MULTILINE)
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_MAKE = re.compile(r"\bmake ([a-z][a-z-]*)")
_PINNED = re.compile(r"[\w-]+/[\w/-]+@[0-9a-f]{40}")


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", pattern],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [REPOSITORY / name for name in listed if (REPOSITORY / name).exists()]


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings."""
    seen: Counter[str] = Counter()
    names = set()
    for heading in _HEADING.finditer(_FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading["text"])
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        names.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


def broken_links(page: Path, text: str) -> Iterator[str]:
    for link in _LINK.finditer(_FENCE.sub("", text)):
        target, _, anchor = link["target"].partition("#")
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path.read_text())):
            yield link["target"]


PAGES = [page for page in tracked("*.md") if "templates" not in page.parts]  # a new project has pages of its own


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page, page.read_text())) == []


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("[a](CONTRIBUTING.md#set-up-run-test)", []),
        ("[a](CONTRIBUTING.md#set-up)", ["CONTRIBUTING.md#set-up"]),
        ("[a](docs/nothing.md)", ["docs/nothing.md"]),
        ("[a](#here-and-there)\n\n## Here, and `there`", []),
        ("```\n[a](nothing)\n```", []),
    ],
    ids=["a heading", "not a heading", "not a file", "in the page", "code"],
)
def test_a_link_that_leads_nowhere_is_found(text: str, broken: list[str], tmp_path: Path) -> None:
    page = REPOSITORY / "README.md"
    if "#here" in text:
        page = tmp_path / "page.md"
        page.write_text(text)
    assert list(broken_links(page, text)) == broken


def targets() -> set[str]:
    makefile = (REPOSITORY / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    return set(phony.split())


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of `make test`
    return subprocess.run(
        ["make", *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


def test_help_shows_every_target_and_each_is_explained_somewhere() -> None:
    helped = make("help").stdout
    assert {line.split()[1] for line in helped.splitlines()} == targets()
    pages = (REPOSITORY / "README.md").read_text() + (REPOSITORY / "CONTRIBUTING.md").read_text()
    assert targets() - set(_MAKE.findall(pages)) == set()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_targets_that_are_there_and_may_do_little(workflow: Path) -> None:
    document: dict[Any, Any] = yaml.safe_load(workflow.read_text())
    assert document["permissions"] in ({}, {"contents": "read"})
    for name, job in document["jobs"].items():
        assert job.get("permissions", {}).keys() <= {"contents"}, name
        for step in job["steps"]:
            assert set(_MAKE.findall(step.get("run", ""))) <= targets(), step
            assert "uses" not in step or _PINNED.fullmatch(step["uses"]), f"{step['uses']} is not pinned to a commit"
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_workflows_run_what_a_developer_runs_on_every_version() -> None:
    document = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "test.yml").read_text())
    job = document["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert {"make test", "make demo"} <= {step.get("run") for step in job["steps"]}


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("custom.github-workflows-require-timeout", WORKFLOWS),
        ("vendor.github-issue-forms", FORMS),
        ("vendor.github-issue-config", [REPOSITORY / ".github" / "ISSUE_TEMPLATE" / "config.yml"]),
        ("vendor.dependabot", [REPOSITORY / ".github" / "dependabot.yml"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_github_takes_them(schema: str, files: list[Path]) -> None:
    assert files
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_pre_commit_runs_the_tools_of_this_checkout_only() -> None:
    document = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in document["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in document["repos"]} == {"local"}, "a version of its own would drift"
    assert {hook["language"] for hook in hooks} == {"system"}
    assert all(hook["entry"].startswith(("make ", ".venv/bin/")) for hook in hooks)
    assert any("lint" in _MAKE.findall(hook["entry"].replace("--no-print-directory ", "")) for hook in hooks)


def test_images_without_docker_say_what_to_do() -> None:
    made = make("images", "DOCKER=/nowhere/docker")
    assert (made.returncode, made.stdout) == (2, "")
    assert "error: /nowhere/docker is not there\n  do:    install Docker Engine" in made.stderr


def test_dependabot_leaves_alone_what_is_pinned_to_a_release() -> None:
    updates = yaml.safe_load((REPOSITORY / ".github" / "dependabot.yml").read_text())["updates"]
    (left_alone,) = [each["ignore"] for each in updates if each["package-ecosystem"] == "pip"]
    pinned = set(re.findall(r'"([a-z0-9-]+)==', (REPOSITORY / "pyproject.toml").read_text()))
    assert {each["dependency-name"] for each in left_alone} == pinned


def test_the_changelog_knows_this_version() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    (version,) = re.findall(r'^version = "(.*)"$', project, re.MULTILINE)
    assert re.search(rf"^## \[.*{re.escape(version)}", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
