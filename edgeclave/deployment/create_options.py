"""createOptions: objects in the template, strings of at most 512 characters in the manifest; checked in both forms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgeclave.deployment.container_options import ContainerOptions, canonical
from edgeclave.deployment.document import convert
from edgeclave.errors import ConfigurationError

NAME = "createOptions"
CHUNK_CHARACTERS = 512
MAX_CHUNKS = 8
KEYS = (NAME, *(f"{NAME}{number:02d}" for number in range(1, MAX_CHUNKS)))


def minify(settings: dict[str, Any], where: str) -> dict[str, Any]:
    """Settings whose createOptions are in the form IoT Hub takes: createOptions, createOptions01, ...

    Raises:
        ConfigurationError: `bad-create-options`.
    """
    if not any(key in settings for key in KEYS):
        return settings
    place = f"{where}.{NAME}"
    rest = {key: value for key, value in settings.items() if key not in KEYS}
    text = json.dumps(read(settings, where), separators=(",", ":"))
    chunks = [text[start : start + CHUNK_CHARACTERS] for start in range(0, len(text), CHUNK_CHARACTERS)]
    if len(chunks) > MAX_CHUNKS:
        raise _bad(f"has {len(text)} characters, the limit is {CHUNK_CHARACTERS * MAX_CHUNKS}", place)
    return {**rest, **dict(zip(KEYS, chunks, strict=False))}


def read(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Docker's options as one object, whether they were written as an object or as strings; empty without any.

    Raises:
        ConfigurationError: `bad-create-options` naming the field.
    """
    place = f"{where}.{NAME}"
    parts = [settings[key] for key in KEYS if key in settings]
    if len(parts) == 1 and isinstance(parts[0], dict):
        options: dict[str, Any] = parts[0]
    elif all(isinstance(part, str) for part in parts):
        options = _parsed("".join(parts), place)
    else:
        raise _bad("must be an object, or a string that holds one", place)
    options = canonical(options)
    convert(options, ContainerOptions, place, code="bad-create-options")
    return options


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except ValueError as error:
        raise _bad(f"is a string that does not hold JSON: {error}", where) from error
    if not isinstance(value, dict):
        raise _bad("is a string that does not hold an object", where)
    return value


def _bad(what: str, where: str) -> ConfigurationError:
    return ConfigurationError(
        "bad-create-options", what, where=where, advice="write Docker's container create options as an object"
    )
