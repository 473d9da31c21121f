"""Options that the commands of the simulator share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

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
        raise ConfigurationError("file-unreadable", f"{text[1:]}: {error.strerror}", where=where) from error


def read_json_argument(text: str, where: str) -> Any:
    """Raises ConfigurationError `bad-json`, or `file-unreadable`."""
    raw = read_argument(text, where)
    try:
        return json.loads(raw)
    except ValueError as error:
        raise ConfigurationError(
            "bad-json", f"not JSON: {error}", where=where, advice="quote it for the shell: '{\"name\": 1}'"
        ) from error
