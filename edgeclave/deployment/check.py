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
from typing import Annotated, Any

import msgspec

from edgeclave.deployment import located_json, twin_limits
from edgeclave.deployment.conditions import parse
from edgeclave.deployment.document import nearest, suggestion
from edgeclave.deployment.findings import UNDEFINED, Finding, Report
from edgeclave.deployment.images import DEFAULT_PLATFORM, MODULES_FOLDER, Images
from edgeclave.deployment.known_modules import ENCLAVE_BROKER, TA_RUNNER, kind
from edgeclave.deployment.manifest import (
    EDGE_AGENT,
    EDGE_HUB,
    WHOLE,
    check_agent,
    expect_object,
    minified,
    modules_of,
    name_of,
)
from edgeclave.deployment.route_checks import check_hub
from edgeclave.deployment.structure import check_value
from edgeclave.deployment.twin_checks import (
    check_known_twin,
    check_policy_names,
    check_size,
    check_twin,
    trusted_apps_of,
)
from edgeclave.deployment.variables import expand, read_env_file, references
from edgeclave.errors import ConfigurationError

TEMPLATE_VERSIONS = ("4.0.0", "4.0.1", "3.0.0", "2.0.0", "1.0.0")
MAX_TEMPLATE_BYTES = 1 << 20
ENV_FILE = ".env"
MODULES_CONTENT = "modulesContent"
_VERSION_KEY = "$schema-template"
_TOP = (MODULES_CONTENT, _VERSION_KEY, "$schema")
_TOP_OF_LAYER = (
    "content",
    _VERSION_KEY,
    "$schema",
    "id",
    "schemaVersion",
    "labels",
    "targetCondition",
    "priority",
    "metrics",
)


class _Targeting(msgspec.Struct, rename="camel"):
    """What a configuration of IoT Hub has besides its content, as `az iot edge deployment show` prints it."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9\-:+%_#*?!(),=@;]{1,128}\Z")]
    target_condition: str
    priority: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    labels: dict[str, str]
    metrics: dict[str, Any]


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
    images = Images(root, path.absolute().parent, values, platform)
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
    _check_document(located.value, report)
    ordered = sorted(report.findings, key=lambda finding: (finding.file != str(path), finding.line))
    return Examined(located.value, ordered, images)


def solution_of(path: Path) -> Path:
    """The folder that has `modules/` and `.env`: that of the file, or the one above it."""
    folder = path.absolute().parent
    above = folder.parent
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
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("bad-deployment", f"cannot be read: {error}", where=str(path)) from error


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


def _check_document(document: Any, report: Report) -> None:
    top = expect_object(document, (), report)
    if not top and not isinstance(document, dict):
        return
    version = top.get(_VERSION_KEY, TEMPLATE_VERSIONS[0])
    if version not in TEMPLATE_VERSIONS:
        report.error((_VERSION_KEY,), f"{_VERSION_KEY} {version!r} is not known", f"use {TEMPLATE_VERSIONS[0]}")
    layered = "content" in top
    known = _TOP_OF_LAYER if layered else _TOP
    for name in top:
        if name not in known:
            report.error((name,), f"the name {name!r} is not known here", suggestion(name, known))
    if layered:
        _check_targeting(top, report)
    path: twin_limits.Path = ("content", MODULES_CONTENT) if layered else (MODULES_CONTENT,)
    holder = expect_object(top["content"], ("content",), report) if layered else top
    if MODULES_CONTENT not in holder:
        if nearest(MODULES_CONTENT, holder) is None:
            report.error(path[:-1], f"{MODULES_CONTENT!r} is missing", f"add {MODULES_CONTENT!r}")
        elif layered:
            report.error(path[:-1], f"{MODULES_CONTENT!r} is missing", f"did you mean {MODULES_CONTENT!r}?")
        return
    check_content(expect_object(holder[MODULES_CONTENT], path, report), path, report, layered=layered)


def _check_targeting(top: dict[str, Any], report: Report) -> None:
    for field in msgspec.structs.fields(_Targeting):
        if field.encode_name in top:
            check_value(top[field.encode_name], field.type, (field.encode_name,), report)
    condition = top.get("targetCondition")
    if isinstance(condition, str) and condition.strip() not in ("", "*"):
        with report.catching(("targetCondition",)):
            parse(condition)


def check_content(content: dict[str, Any], path: twin_limits.Path, report: Report, *, layered: bool) -> None:
    """`modulesContent` of a whole deployment, or of a layer."""
    sections = {name: expect_object(section, (*path, name), report) for name, section in content.items()}
    agent, hub = sections.get(EDGE_AGENT, {}), sections.get(EDGE_HUB, {})
    found = modules_of(agent)
    deployed = {name_of(place): _kind_of(name_of(place), module) for place, module in found.items()}
    if not layered:
        for name in (EDGE_AGENT, EDGE_HUB):
            _require_whole(name, content, path, report, deployed)
    check_agent(agent, (*path, EDGE_AGENT), report, layered=layered)
    check_hub(hub, (*path, EDGE_HUB), report, modules=None if layered else deployed, layered=layered)
    for name, section in sections.items():
        if name in (EDGE_AGENT, EDGE_HUB):
            continue
        if not layered and name not in deployed:
            if nearest(name, (EDGE_AGENT, EDGE_HUB)) not in (EDGE_AGENT, EDGE_HUB) or deployed:
                advice = suggestion(name, [EDGE_AGENT, EDGE_HUB, *deployed])
                report.error((*path, name), f"{name!r} is not a module of this deployment", advice)
            continue
        check_twin(section, (*path, name), report)
        check_known_twin(deployed.get(name, name), section, (*path, name), report)
    if not layered:
        _check_names(sections, deployed, path, report)
    if not report.has_errors:
        for key, value in minified(agent).items():
            check_size(value, (*path, EDGE_AGENT, key), report)


def _require_whole(
    name: str, content: dict[str, Any], path: twin_limits.Path, report: Report, deployed: Mapping[str, str]
) -> None:
    if name not in content:
        near = nearest(name, [other for other in content if other not in deployed])
        advice = f"{near!r} is there: was {name!r} meant?" if near else f"add {name!r}"
        report.error(path, f"{name!r} is missing", advice)
    elif isinstance(content[name], dict) and WHOLE not in content[name]:
        near = nearest(WHOLE, content[name])
        advice = f"{near!r} is there: was {WHOLE!r} meant?" if near else f"add {WHOLE!r}"
        report.error((*path, name), f"{WHOLE!r} is missing", advice)


def _check_names(
    sections: Mapping[str, dict[str, Any]], deployed: Mapping[str, str], path: twin_limits.Path, report: Report
) -> None:
    runner = next((name for name, its_kind in deployed.items() if its_kind == TA_RUNNER), "")
    for name, its_kind in deployed.items():
        if its_kind == ENCLAVE_BROKER and name in sections:
            check_policy_names(
                sections[name],
                (*path, name),
                report,
                modules=deployed.keys(),
                trusted_apps=trusted_apps_of(sections.get(runner, {})),
            )


def _kind_of(name: str, module: Any) -> str:
    settings = module.get("settings") if isinstance(module, dict) else None
    image = settings.get("image") if isinstance(settings, dict) else None
    return kind(name, image if isinstance(image, str) and not image.startswith("${") else "")
