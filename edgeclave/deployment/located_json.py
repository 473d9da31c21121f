"""JSON with the line of every member and every repeated name.

>>> read('{"a": {\\n "b": 1}}', "x.json").lines[("a", "b")]
2
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from edgeclave.deployment.twin_limits import Path
from edgeclave.errors import ConfigurationError

MAX_JSON_DEPTH = 64
MAX_DIGITS = 4300  # of an integer that Python reads
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


class Repeated(NamedTuple):
    """A name that stands in one object for the second time; the last one counts for most readers."""

    path: Path
    first_line: int


class Located(NamedTuple):
    """A value; the line, from 1, of each name and element in it."""

    value: Any
    lines: dict[Path, int]
    repeated: list[Repeated]


def read(text: str, where: str) -> Located:
    """Raises ConfigurationError `bad-json` with line and column."""
    if not text.strip():
        raise _bad("the file is empty", where, 1, "write a JSON object")
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        lines = text.splitlines()
        line = lines[error.lineno - 1].strip()[:80] if error.lineno <= len(lines) else ""
        advice = "look for a missing or extra comma, quote or bracket there, or just before it"
        if line.startswith(("//", "/*")):
            advice = "JSON has no comments: remove it"
        raise ConfigurationError(
            "bad-json",
            f"not JSON: {error.msg}, near {line!r}",
            where=f"{where}, line {error.lineno}, column {error.colno}",
            advice=advice,
        ) from error
    except ValueError as error:  # a number that is none, or too long to be read
        what = str(error).partition(";")[0]  # what follows is advice to programmers
        raise _bad(what, where, _first_line(text, _is_no_number), "write a number of JSON") from error
    except RecursionError as error:
        raise _too_deep(where, _first_line(text, _Depth().exceeded)) from error
    if "\\ud" in text.lower() and (half := _first_line(text, _is_half, none=0)):
        raise _bad("holds half a character, which no text can hold", where, half, "write both halves of the \\u pair")
    return _locate(text, value, where)


def _locate(text: str, value: Any, where: str) -> Located:
    """Walks the tokens of a text that is known to be JSON."""
    line_ends = [match.start() for match in re.finditer("\n", text)]
    lines: dict[Path, int] = {}
    repeated: list[Repeated] = []
    path: list[str | int] = []  # the place of the value that comes next, within the containers that are open
    opened: list[set[str] | None] = []  # for each of them: the names so far, None for an array
    wants_name = False
    for match in _PIECE.finditer(text):
        piece = match[0]
        if wants_name and piece[0] == '"':
            name, names = json.loads(piece), opened[-1]
            path[-1] = name
            line = _line(line_ends, match.start())
            if names is not None and name in names:
                repeated.append(Repeated(tuple(path), lines[tuple(path)]))
            elif names is not None:
                names.add(name)
            lines[tuple(path)] = line
            wants_name = False
        elif piece in ("{", "["):
            if len(opened) >= MAX_JSON_DEPTH:
                raise _too_deep(where, _line(line_ends, match.start()))
            if _is_element(opened):
                lines[tuple(path)] = _line(line_ends, match.start())
            opened.append(set() if piece == "{" else None)
            path.append("" if piece == "{" else 0)
            wants_name = piece == "{"
        elif piece in ("}", "]"):
            opened.pop()
            path.pop()
            wants_name = False
        elif piece == ",":
            last = path[-1]
            if isinstance(last, int):
                path[-1] = last + 1
            wants_name = opened[-1] is not None
        elif piece != ":" and _is_element(opened):
            lines[tuple(path)] = _line(line_ends, match.start())
    return Located(value, lines, repeated)


class _Depth:
    def __init__(self) -> None:
        self._levels = 0

    def exceeded(self, piece: str) -> bool:
        self._levels += (piece in ("{", "[")) - (piece in ("}", "]"))
        return self._levels > MAX_JSON_DEPTH


def _is_no_number(piece: str) -> bool:
    return piece in ("NaN", "Infinity", "-Infinity") or (len(piece) > MAX_DIGITS and piece[0] != '"')


def _is_half(piece: str) -> bool:
    return piece[0] == '"' and any("\ud800" <= character <= "\udfff" for character in json.loads(piece))


def _first_line(text: str, wrong: Callable[[str], bool], *, none: int = 1) -> int:
    """The line of the first piece that is `wrong`; `none` when there is none."""
    start = next((match.start() for match in _PIECE.finditer(text) if wrong(match[0])), None)
    return none if start is None else text.count("\n", 0, start) + 1


def _too_deep(where: str, line: int) -> ConfigurationError:
    return _bad(f"is nested deeper than {MAX_JSON_DEPTH} levels", where, line, "look for a bracket that is not closed")


def _bad(what: str, where: str, line: int, advice: str) -> ConfigurationError:
    return ConfigurationError("bad-json", what, where=f"{where}, line {line}", advice=advice)


def _is_element(opened: list[set[str] | None]) -> bool:
    return bool(opened) and opened[-1] is None


def _line(line_ends: list[int], offset: int) -> int:
    return bisect.bisect_left(line_ends, offset) + 1


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
