"""What a whole file says: its top, then the sections of `modulesContent`, and names that must agree between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from edgeclave.deployment.conditions import TWINS, parse
from edgeclave.deployment.document import nearest, suggestion
from edgeclave.deployment.findings import Report
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
from edgeclave.deployment.structure import check_value, fields_of
from edgeclave.deployment.twin_checks import (
    check_known_twin,
    check_policy_names,
    check_size,
    check_twin,
    trusted_apps_of,
)
from edgeclave.deployment.twin_limits import Path

MODULES_CONTENT = "modulesContent"
TEMPLATE_VERSIONS = ("4.0.0", "4.0.1", "3.0.0", "2.0.0", "1.0.0")
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


def check_document(document: Any, report: Report) -> None:
    """A template, a manifest or a layered deployment, whole."""
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
    path: Path = ("content", MODULES_CONTENT) if layered else (MODULES_CONTENT,)
    holder = expect_object(top["content"], ("content",), report) if layered else top
    if MODULES_CONTENT not in holder:
        if nearest(MODULES_CONTENT, holder) is None:
            report.error(path[:-1], f"{MODULES_CONTENT!r} is missing", f"add {MODULES_CONTENT!r}")
        elif layered:
            report.error(path[:-1], f"{MODULES_CONTENT!r} is missing", f"did you mean {MODULES_CONTENT!r}?")
        return
    _check_content(expect_object(holder[MODULES_CONTENT], path, report), path, report, layered=layered)


def _check_targeting(top: dict[str, Any], report: Report) -> None:
    for name, field in fields_of(_Targeting).items():
        if name in top:
            check_value(top[name], field.type, (name,), report)
    condition = top.get("targetCondition")
    if isinstance(condition, str) and condition.strip() not in ("", "*"):
        with report.catching(("targetCondition",)):
            parse(condition, TWINS)


def _check_content(content: dict[str, Any], path: Path, report: Report, *, layered: bool) -> None:
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
            if nearest(name, [system for system in (EDGE_AGENT, EDGE_HUB) if system not in content]) is None:
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


def _require_whole(name: str, content: dict[str, Any], path: Path, report: Report, deployed: Mapping[str, str]) -> None:
    if name not in content:
        near = nearest(name, [other for other in content if other not in deployed])
        advice = f"{near!r} is there: was {name!r} meant?" if near else f"add {name!r}"
        report.error(path, f"{name!r} is missing", advice)
    elif isinstance(content[name], dict) and WHOLE not in content[name]:
        if any(key.startswith(f"{WHOLE}.") for key in content[name]):
            advice = f'put {MODULES_CONTENT!r} into "content": {{...}}'
            report.error((*path, name), "a layer stands at the top of the file", advice)
            return
        near = nearest(WHOLE, content[name])
        advice = f"{near!r} is there: was {WHOLE!r} meant?" if near else f"add {WHOLE!r}"
        report.error((*path, name), f"{WHOLE!r} is missing", advice)


def _check_names(
    sections: Mapping[str, dict[str, Any]], deployed: Mapping[str, str], path: Path, report: Report
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
