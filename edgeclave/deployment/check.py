"""Checks a deployment template, a manifest or a layered deployment before anybody applies it.

    findings = check_deployment(Path("deployment.template.json"))
    if any(finding.severity == "error" for finding in findings): ...

It finds what the JSON schemas of the official tools miss: routes that carry nothing, images that no module.json makes,
container options that Docker would ignore or that hand out the device, entries that the suite's own modules would
refuse, variables that nothing defines, names that stand twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgeclave.deployment import located_json, twin_limits
from edgeclave.deployment.content import check_document
from edgeclave.deployment.document import nearest
from edgeclave.deployment.findings import UNDEFINED, Finding, Report
from edgeclave.deployment.images import DEFAULT_PLATFORM, MODULES_FOLDER, Images
from edgeclave.deployment.variables import expand, read_env_file, references
from edgeclave.errors import ConfigurationError

MAX_TEMPLATE_BYTES = 1 << 20
ENV_FILE = ".env"


@dataclass(frozen=True)
class Examined:
    """A file that was read: `document` is expanded; it can be applied when no finding is an error."""

    document: Any
    findings: list[Finding]
    images: Images

    @property
    def is_layered(self) -> bool:
        return isinstance(self.document, dict) and "content" in self.document


def check_deployment(
    path: Path, *, environment: Mapping[str, str] | None = None, platform: str = DEFAULT_PLATFORM
) -> list[Finding]:
    """Everything that is wrong, in the order of its lines.

    Args:
        path: a template, a generated manifest or a layered deployment; `.env` and `modules/` are looked for beside it,
            then in the folder above.
        environment: names that `.env` does not define; os.environ by default.
        platform: of images whose placeholder names none.

    Raises:
        ConfigurationError: `no-such-template` or `bad-deployment`: the file cannot be read at all.
    """
    return examine(path, environment, platform).findings


def examine(path: Path, environment: Mapping[str, str] | None, platform: str) -> Examined:
    """Raises ConfigurationError when the file cannot be read at all."""
    text = _read(path)
    root = solution_of(path)
    report = Report(str(path))
    values = dict(os.environ if environment is None else environment)
    try:
        values |= read_env_file(root / ENV_FILE)
    except ConfigurationError as error:
        report.findings.append(Finding.of(error))
    images = Images(root, path.parent, values, platform)
    undefined = expand(text, values)[1]
    expanded, _ = expand(images.expand(text), values)
    try:
        located = located_json.read(expanded, str(path))
    except ConfigurationError as error:
        report.findings.append(_not_json(error, undefined))
        return Examined(None, report.findings, images)
    report = Report(str(path), located.lines, report.findings)
    for repeated in located.repeated:
        what = f"the name {repeated.path[-1]!r} stands twice in one object, first on line {repeated.first_line}"
        report.error(repeated.path, what, "remove one: only the last counts", code="repeated-name")
    _check_references(located.value, set(undefined), images, report)
    check_document(located.value, report)
    ordered = sorted(report.findings, key=lambda finding: (finding.file != str(path), finding.line))
    return Examined(located.value, ordered, images)


def solution_of(path: Path) -> Path:
    """The folder that has `modules/` and `.env`: that of the file, or the one above it."""
    folder = path.parent
    above = folder.parent if folder.name not in ("", "..") else folder / ".."
    return above if not (folder / MODULES_FOLDER).is_dir() and (above / MODULES_FOLDER).is_dir() else folder


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEMPLATE_BYTES:
            raise ConfigurationError(
                "bad-deployment", f"is over the limit of {MAX_TEMPLATE_BYTES} bytes", where=str(path)
            )
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigurationError(
            "no-such-template",
            "the deployment template is not there",
            where=str(path),
            advice="run where deployment.template.json is, or name the file",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            "bad-deployment", f"is not UTF-8: {error}", where=str(path), advice="save it as UTF-8"
        ) from error
    except OSError as error:
        raise ConfigurationError("bad-deployment", f"cannot be read: {error.strerror}", where=str(path)) from error


def _not_json(error: ConfigurationError, undefined: list[str]) -> Finding:
    """A variable outside quotes that nothing defines is the usual reason."""
    finding = Finding.of(error)
    if meant := next((name for name in references(finding.what) if name in undefined), None):
        return msgspec.structs.replace(finding, advice=f"define {meant} in {ENV_FILE}, or put it in quotes")
    return finding


def _check_references(value: Any, undefined: set[str], images: Images, report: Report) -> None:
    """Placeholders and variables that stand for nothing, at each place that has one."""
    for path, text in _texts(value):
        for placeholder, error in images.problems.items():
            if placeholder in text:
                report.unresolved.add(path)
                if error.where:
                    report.findings.append(Finding.of(error))
                else:
                    report.error(path, error.what, error.advice, code=error.code)
        for name in references(text):
            if name in undefined:
                what = f"${name} is not defined in {ENV_FILE} or the environment"
                report.error(path, what, _define(name, images.values), code=UNDEFINED)
            if name in undefined or name in images.undefined:
                report.unresolved.add(path)
    for name, file in images.undefined.items():
        what = f"${name} is not defined in {ENV_FILE} or the environment"
        line = file.read_text(encoding="utf-8").partition(name)[0].count("\n") + 1
        advice = _define(name, images.values)
        report.findings.append(Finding("error", UNDEFINED, what, str(file), line, advice=advice))


def _define(name: str, values: Mapping[str, str]) -> str:
    near = nearest(name, values)
    return f"did you mean ${near}?" if near else f"add {name}= to {ENV_FILE}; .env.example has what is needed"


def _texts(value: Any, path: twin_limits.Path = ()) -> Iterator[tuple[twin_limits.Path, str]]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield (*path, name), name
            yield from _texts(below, (*path, name))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _texts(below, (*path, index))
    elif isinstance(value, str):
        yield path, value
