"""createOptions: objects in the template, strings of at most 512 characters in the manifest."""

from __future__ import annotations

import json
from typing import Any

from edgeclave.errors import ConfigurationError

NAME = "createOptions"
CHUNK_CHARACTERS = 512
MAX_CHUNKS = 8
KEYS = (NAME, *(f"{NAME}{number:02d}" for number in range(1, MAX_CHUNKS)))


def read(settings: dict[str, Any]) -> dict[str, Any]:
    """The options of a module's settings, whole; empty when there are none.

    Raises:
        ConfigurationError: `bad-create-options`.
    """
    return _parsed(_text(settings))


def minify(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings whose createOptions are in the form IoT Hub takes: createOptions, createOptions01, ...

    Raises:
        ConfigurationError: `bad-create-options`.
    """
    if not settings.keys() & set(KEYS):
        return settings
    text = _text(settings)
    chunks = [text[start : start + CHUNK_CHARACTERS] for start in range(0, len(text), CHUNK_CHARACTERS)]
    if len(chunks) > MAX_CHUNKS:
        what = f"has {len(text)} characters, the limit is {CHUNK_CHARACTERS * MAX_CHUNKS}"
        raise _bad(what, "make it shorter: what is long and the same for each device belongs into the image")
    rest = {key: value for key, value in settings.items() if key not in KEYS}
    return {**rest, **dict(zip(KEYS, chunks, strict=False))}


def _text(settings: dict[str, Any]) -> str:
    given = [key for key in KEYS if key in settings]
    parts = [settings[key] for key in given]
    if len(parts) == 1 and isinstance(parts[0], dict) and given == [NAME]:
        return json.dumps(parts[0], separators=(",", ":"))
    if not all(isinstance(part, str) for part in parts):
        raise _bad("must be an object, or a string that holds one")
    for expected, key in zip(KEYS, given, strict=False):
        if key != expected:
            raise _bad(f"{key} is there without {expected}, where edgeAgent stops reading")
    for key, part in zip(given, parts, strict=True):
        if len(part) > CHUNK_CHARACTERS and len(parts) > 1:
            raise _bad(f"{key} has {len(part)} characters, and a part has at most {CHUNK_CHARACTERS}")
    _parsed("".join(parts))
    return "".join(parts)


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise _bad(f"is a string that does not hold JSON: {error}") from error
    if not isinstance(value, dict):
        raise _bad("is a string that does not hold an object")
    return value


def _bad(what: str, advice: str = "write Docker's container create options as an object") -> ConfigurationError:
    return ConfigurationError("bad-create-options", what, where=NAME, advice=advice)
