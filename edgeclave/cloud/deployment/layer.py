"""Layered deployments: paths below `properties.desired` that IoT Hub puts on top of a base deployment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgeclave.deployment.create_options import minify
from edgeclave.deployment.deployment import ENV_FILE, _read
from edgeclave.deployment.document import bad, expect_object, read_json, require
from edgeclave.deployment.images import Images
from edgeclave.deployment.manifest import MODULES_CONTENT, WHOLE
from edgeclave.deployment.variables import expand, read_env_file

_SYSTEM = ("$edgeAgent", "$edgeHub")


def generate_layer(template: Path) -> dict[str, dict[str, Any]]:
    """The `modulesContent` of a layer's template, with variables, images and createOptions as they are sent.

    Raises:
        ConfigurationError: `bad-deployment` and what reading a template raises.
    """
    values = {**os.environ, **read_env_file(template.parent / ENV_FILE)}
    images = Images(template.parent.absolute(), values)
    expanded, _ = expand(images.expand(_read(template), str(template)), values)
    document = expect_object(read_json(expanded, str(template)), str(template))
    content = expect_object(require(document, MODULES_CONTENT, str(template)), MODULES_CONTENT)
    return {name: _entries(name, entries) for name, entries in content.items()}


def _entries(name: str, entries: object) -> dict[str, Any]:
    place = f"{MODULES_CONTENT}.{name}"
    made = {}
    for path, value in expect_object(entries, place).items():
        if name in _SYSTEM and path == WHOLE:
            raise bad(
                f"a layer must not give {name} all its desired properties",
                place,
                advice=f"write {WHOLE}.modules.NAME or {WHOLE}.routes.NAME, or leave out --layered",
            )
        parts = path.split(".")
        if parts[:2] != WHOLE.split(".") or not all(parts):
            raise bad(f"{path!r} is not {WHOLE} or a path below it", place)
        is_module = name == _SYSTEM[0] and parts[2:3] == ["modules"] and len(parts) == 4
        made[path] = _module(value, f"{place}.{path}") if is_module else value
    return made


def _module(value: object, place: str) -> dict[str, Any]:
    module = expect_object(value, place)
    settings = expect_object(require(module, "settings", place), f"{place}.settings")
    return {**module, "settings": minify(settings, f"{place}.settings")}
