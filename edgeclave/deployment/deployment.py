"""Generates a deployment manifest from a template (schema-template 4.0.0).

The steps, as the official tools have them:

1. `${MODULES.x}` and `${MODULEDIR<path>}` become image names (`images.py`).
2. `$NAME` and `${NAME}` become values over the whole text (`variables.py`); undefined ones stay and are reported.
3. createOptions objects become strings of 512 characters (`create_options.py`).
4. What edgeAgent, edgeHub or IoT Hub would refuse is refused here, with its place (`manifest.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeclave.deployment.document import expect_object, read_json, require, suggestion
from edgeclave.deployment.images import DEFAULT_PLATFORM, Images
from edgeclave.deployment.manifest import MODULES_CONTENT, check_content, unknown_route_targets
from edgeclave.deployment.variables import expand, read_env_file
from edgeclave.errors import ConfigurationError

TEMPLATE_VERSIONS = ("4.0.0", "4.0.1", "3.0.0", "2.0.0", "1.0.0")
MAX_TEMPLATE_BYTES = 1 << 20
ENV_FILE = ".env"
MANIFEST_FILE = f"deployment.{DEFAULT_PLATFORM}.json"
_VERSION_KEY = "$schema-template"


@dataclass(frozen=True)
class Deployment:
    """A manifest ready to be applied.

    `folders` maps an image to the source folder of the module it is built from; `notes` are sentences for the user
    about what is legal and probably not meant.
    """

    manifest: dict[str, Any]
    folders: Mapping[str, Path]
    notes: tuple[str, ...]

    def write(self, state_directory: Path) -> Path:
        """Writes `config/deployment.amd64.json` below the directory and returns its path."""
        path = state_directory / "config" / MANIFEST_FILE
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # it may hold secrets of .env
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(self.manifest, file, indent=2)
            file.write("\n")
        temporary.replace(path)
        return path


def generate(template: Path, environment: Mapping[str, str] | None = None) -> Deployment:
    """Args:
        template: the file; `.env` and `modules/` are looked for beside it.
        environment: names that `.env` does not define; os.environ by default.

    Raises:
        ConfigurationError: what is wrong, and where.
    """
    text = _read(template)
    values = {**(os.environ if environment is None else environment), **read_env_file(template.parent / ENV_FILE)}
    images = Images(template.parent.absolute(), values)
    expanded, undefined = expand(images.expand(text, str(template)), values)
    document = expect_object(read_json(expanded, str(template)), str(template))
    _check_top(document)
    content = check_content(require(document, MODULES_CONTENT, str(template)))
    names = [*undefined, *(name for name in images.undefined if name not in undefined)]
    notes = [f"${name} is not defined in {ENV_FILE} or the environment; it was left as it is" for name in names]
    folders = {expand(image, values)[0]: folder for image, folder in images.folders.items()}
    return Deployment({MODULES_CONTENT: content}, folders, (*notes, *unknown_route_targets(content)))


def _read(template: Path) -> str:
    try:
        if template.stat().st_size > MAX_TEMPLATE_BYTES:
            raise ConfigurationError(
                "bad-deployment", f"is over the limit of {MAX_TEMPLATE_BYTES} bytes", where=str(template)
            )
        return template.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigurationError(
            "no-such-template",
            "the deployment template is not there",
            where=str(template),
            advice="run where deployment.template.json is, or name the file",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("bad-deployment", f"cannot be read: {error}", where=str(template)) from error


def _check_top(document: dict[str, Any]) -> None:
    version = document.get(_VERSION_KEY, TEMPLATE_VERSIONS[0])
    if version not in TEMPLATE_VERSIONS:
        raise ConfigurationError(
            "bad-deployment",
            f"{_VERSION_KEY} {version!r} is not known",
            where=_VERSION_KEY,
            advice=f"use {TEMPLATE_VERSIONS[0]}",
        )
    for name in document:
        if name not in (MODULES_CONTENT, _VERSION_KEY, "$schema"):
            raise ConfigurationError(
                "bad-deployment",
                f"the name {name!r} is not known here",
                where="top level",
                advice=suggestion(name, [MODULES_CONTENT, _VERSION_KEY]),
            )
