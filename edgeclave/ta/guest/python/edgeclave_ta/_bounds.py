"""Bounds for `Annotated`, and the error that names where a value does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_SHOWN_CHARACTERS = 64


class Mismatch(ValueError):  # noqa: N818 - what it is
    """A value of another type than declared; `path` is where, as in `readings[3].value`."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path or 'payload'}: {what}")
        self.path = path
        self.what = what


def shown(name: str) -> str:
    """A name that came from outside, as much of it as stands in a message."""
    return name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}..."


@dataclass(frozen=True)
class Range:
    """`Annotated[float, Range(0, 100)]`: a number from `minimum` to `maximum`, both included."""

    minimum: float | None = None
    maximum: float | None = None

    def check(self, value: Any, path: str) -> None:
        if isinstance(value, int | float):
            _check_between(value, self.minimum, self.maximum, path, "")


@dataclass(frozen=True)
class Length:
    """`Annotated[str, Length(1, 64)]`: text, a list or a dict with so many characters or entries."""

    minimum: int = 0
    maximum: int | None = None

    def check(self, value: Any, path: str) -> None:
        if isinstance(value, str | list | tuple | dict):
            what = "characters" if isinstance(value, str) else "entries"
            _check_between(len(value), self.minimum, self.maximum, path, f", not {len(value)}", f"have {{}} {what}")


def _check_between(
    value: float, minimum: float | None, maximum: float | None, path: str, found: str, form: str = "be {}"
) -> None:
    if (minimum is None or value >= minimum) and (maximum is None or value <= maximum):
        return
    bounds = [f"at least {minimum}" if minimum is not None else "", f"at most {maximum}" if maximum is not None else ""]
    raise Mismatch(path, f"must {form.format(' and '.join(filter(None, bounds)))}{found}")
