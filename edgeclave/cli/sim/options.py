"""Options that the commands of the simulator share."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from edgeclave.errors import ConfigurationError

DEFAULT_STATE = Path(".edgeclave/sim")

State = Annotated[Path, typer.Option("--state", help="Where the simulator keeps everything.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def read_argument(text: str, where: str) -> bytes:
    """The bytes of an argument: itself, `@FILE`, or `-` for standard input.

    Raises:
        ConfigurationError: `file-unreadable`.
    """
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise ConfigurationError(
            "file-unreadable",
            f"{text[1:]}: {error.strerror}",
            where=where,
            advice="name a file as @FILE, or - for standard input",
        ) from error


def not_empty(name: str, where: str) -> str:
    """Raises ConfigurationError `no-name`: often a `$name` that the shell has taken away."""
    if not name:
        raise ConfigurationError("no-name", "the name is empty", where=where, advice="quote '$edgeAgent' for the shell")
    return name


def read_json_argument(text: str, where: str) -> Any:
    """Raises ConfigurationError `bad-json`, or `file-unreadable`."""
    raw = read_argument(text, where)
    from_elsewhere = text == "-" or text.startswith("@")
    advice = "correct it there" if from_elsewhere else "quote it for the shell: '{\"name\": 1}'"
    try:
        return json.loads(raw, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError("bad-json", f"not JSON: {error}", where=where, advice=advice) from error


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):  # it would be sent as null, which removes a property
        raise ValueError(f"{text[:40]} is too large a number")
    return number
