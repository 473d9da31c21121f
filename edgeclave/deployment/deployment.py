"""Generates a deployment manifest from a template (schema-template 4.0.0).

The steps, as the official tools have them:

1. `${MODULES.x}` and `${MODULEDIR<path>}` become image names (`images.py`).
2. `$NAME` and `${NAME}` become values over the whole text (`variables.py`); undefined ones stay and are reported.
3. What edgeAgent, edgeHub or IoT Hub would refuse is refused here, with its place (`check.py`).
4. createOptions objects become strings of 512 characters (`create_options.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeclave.deployment.check import Examined, examine
from edgeclave.deployment.content import MODULES_CONTENT
from edgeclave.deployment.findings import UNDEFINED, Finding
from edgeclave.deployment.images import DEFAULT_PLATFORM
from edgeclave.deployment.manifest import EDGE_AGENT, minified
from edgeclave.deployment.variables import expand
from edgeclave.errors import ConfigurationError

TEMPLATE_SUFFIX = ".template.json"
_VERSION_KEY = "$schema-template"


@dataclass(frozen=True)
class Deployment:
    """A manifest ready to be applied: `{"modulesContent": ...}`, or a layered configuration with its `content`.

    `folders` maps an image to the source folder of the module it is built from; `notes` are sentences for the user
    about what is legal and probably not meant; `name` is that of the manifest's file.
    """

    manifest: dict[str, Any]
    folders: Mapping[str, Path]
    notes: tuple[str, ...]
    name: str

    @property
    def is_layered(self) -> bool:
        return MODULES_CONTENT not in self.manifest

    @property
    def modules_content(self) -> dict[str, Any]:
        content: dict[str, Any] = self.manifest.get("content", self.manifest)[MODULES_CONTENT]
        return content

    def write(self, state_directory: Path) -> Path:
        """Writes `config/deployment.amd64.json` below the directory and returns its path."""
        path = state_directory / "config" / self.name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # it may hold secrets of .env
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(self.manifest, file, indent=2)
            file.write("\n")
        temporary.replace(path)
        return path


def generate(
    template: Path, environment: Mapping[str, str] | None = None, *, platform: str = DEFAULT_PLATFORM
) -> Deployment:
    """Args:
        template: the file; `.env` and `modules/` are looked for beside it, then in the folder above.
        environment: names that `.env` does not define; os.environ by default.
        platform: of images whose placeholder names none.

    Raises:
        ConfigurationError: what is wrong, and where. An undefined variable is only a note.
    """
    examined = examine(template, environment, platform)
    errors = [finding for finding in examined.findings if finding.severity == "error" and finding.code != UNDEFINED]
    if errors:
        raise _first(errors, template)
    notes = tuple(_note(finding) for finding in examined.findings)
    values = examined.images.values
    folders = {expand(image, values)[0]: folder for image, folder in examined.images.folders.items()}
    name = f"{template.name.removesuffix(TEMPLATE_SUFFIX).removesuffix('.json')}.{platform}.json"
    return Deployment(_manifest(examined), folders, notes, name)


def _manifest(examined: Examined) -> dict[str, Any]:
    document = {key: value for key, value in examined.document.items() if key not in (_VERSION_KEY, "$schema")}
    holder = document["content"] if examined.is_layered else document
    content = dict(holder[MODULES_CONTENT])
    if EDGE_AGENT in content:
        content[EDGE_AGENT] = minified(content[EDGE_AGENT])
    if examined.is_layered:
        return {**document, "content": {**holder, MODULES_CONTENT: content}}
    return {**document, MODULES_CONTENT: content}


def _first(errors: list[Finding], template: Path) -> ConfigurationError:
    error = errors[0].error()
    if len(errors) == 1:
        return error
    more = f"{len(errors) - 1} more: see `edgeclave deployment check {template}`"
    return ConfigurationError(
        error.code, error.what, where=error.where, advice=f"{error.advice}; {more}" if error.advice else more
    )


def _note(finding: Finding) -> str:
    advice = f"; {finding.advice}" if finding.advice else ""
    return f"{finding.where}: {finding.what}{advice}"
