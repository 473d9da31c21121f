"""What a template deploys: a whole deployment, or a layer with the target and priority in its file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeclave.deployment import Finding, check_deployment, generate
from edgeclave.errors import ConfigurationError

Content = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Template:
    """`content` is the manifest's `modulesContent`; `notes` are sentences about what is legal and probably not meant.

    A layer's file may name `id`, `target`, `priority` and `labels`.
    """

    content: Content
    notes: tuple[str, ...]
    layered: bool
    id: str = ""
    target: str = ""
    priority: int = 0
    labels: dict[str, str] | None = None


class TemplateError(ConfigurationError):
    """The first mistake in a template; `errors` are all of them."""

    def __init__(self, findings: list[Finding]) -> None:
        self.errors = [finding.error() for finding in findings]
        first = self.errors[0]
        super().__init__(first.code, first.what, where=first.where, advice=first.advice)


def read_template(path: Path, *, platform: str) -> Template:
    """A template with its variables and images in place.

    A variable that nothing defines is an error here, though the simulator only notes it: devices elsewhere would get
    its name instead of its value.

    Raises:
        ConfigurationError: it cannot be read at all, or TemplateError with all that is wrong in it.
    """
    findings = check_deployment(path, platform=platform)
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise TemplateError(errors)
    deployment = generate(path, platform=platform)
    top = deployment.manifest
    return Template(
        deployment.modules_content,
        (*deployment.notes, *map(_only_here, _local_packages(deployment.modules_content))),
        layered="content" in top,
        id=top.get("id", ""),
        target=top.get("targetCondition", ""),
        priority=top.get("priority", 0),
        labels=top.get("labels"),
    )


def _local_packages(value: object) -> Iterator[str]:
    """Packages that are files of this machine, as `ta sign --env` names them."""
    if isinstance(value, dict):
        package = value.get("package")
        if isinstance(package, str) and package.startswith("/") and os.path.isfile(package):  # noqa: PTH113 - never raises
            yield package
        for below in value.values():
            yield from _local_packages(below)


def _only_here(package: str) -> str:
    return f"{package} is a file of this machine, which no other device can read: `edgeclave ta push` is for those"
