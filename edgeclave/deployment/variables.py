"""`$NAME` and `${NAME}` over the text of a whole file, from `.env` beside it, then from the environment.

`.env` wins: it belongs to the solution, and signing a package writes fresh values there. An undefined name stays as it
is, because `$edgeHub` and `$upstream` look the same; those that were meant as variables are collected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from edgeclave.errors import ConfigurationError

_NEVER_A_VARIABLE = frozenset({"edgeAgent", "edgeHub", "upstream", "schema", "body"})
_REFERENCE = re.compile(r"\$(?:\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)\}|(?P<plain>[A-Za-z_][A-Za-z0-9_]*))")
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*?)\s*")


def read_env_file(path: Path) -> dict[str, str]:
    """NAME=value lines; quotes around a value are dropped, `#` starts a comment line. Empty without the file.

    Raises:
        ConfigurationError: `bad-env-file` with the line's number.
    """
    if not path.is_file():
        return {}
    values: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("bad-env-file", f"cannot be read: {error}", where=str(path)) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(line)
        if match is None:
            raise ConfigurationError(
                "bad-env-file",
                "this line is not NAME=value",
                where=f"{path}, line {number}",
                advice="correct it, or start it with # to make it a comment",
            )
        values[match["name"]] = _unquoted(match["value"])
    return values


def expand(text: str, values: Mapping[str, str]) -> tuple[str, list[str]]:
    """(text with every defined name replaced, undefined names in order of appearance).

    A name in braces, or one in capitals, counts as meant; `$edgeAgent` does not.
    """
    undefined: dict[str, None] = {}

    def replace(match: re.Match[str]) -> str:
        name = match["braced"] or match["plain"]
        if name in values and name not in _NEVER_A_VARIABLE:
            return values[name]
        if match["braced"] or name.isupper():
            undefined[name] = None
        return match[0]

    return _REFERENCE.sub(replace, text), list(undefined)


def references(text: str) -> list[str]:
    """The names that a text refers to, defined or not."""
    return [match["braced"] or match["plain"] for match in _REFERENCE.finditer(text)]


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value
