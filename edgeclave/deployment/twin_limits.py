"""What Azure allows a twin to hold (IoT Hub developer guide, device twins): depth 10, keys of 1 KB, strings of 4 KB,
integers of 53 bits; 8 KB of tags, 32 KB of desired and of reported properties.

>>> [(fault.path, fault.what) for fault in faults({"a": {"b.c": 1}})]
[(('a', 'b.c'), "'b.c' is not a property name")]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_PROPERTIES_BYTES = 32 * 1024
MAX_TAGS_BYTES = 8 * 1024
MAX_DEPTH = 10
MAX_KEY_BYTES = 1024
MAX_STRING_BYTES = 4096
MAX_INTEGER = 4503599627370495
MIN_INTEGER = -4503599627370496
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_FORBIDDEN_IN_KEY = re.compile(r"[\x00-\x1f\x7f-\x9f.$ ]")

Path = tuple[str | int, ...]


class Fault(NamedTuple):
    """One thing a twin cannot hold; `path` leads to it from the section."""

    path: Path
    what: str
    advice: str = ""


def faults(value: object, path: Path = ()) -> Iterator[Fault]:
    """Everything in a section, or a patch of one, that IoT Hub would refuse, but for its size."""
    depth = len(path) + 1
    if isinstance(value, dict | list) and depth > MAX_DEPTH:
        yield Fault(path, f"is nested deeper than {MAX_DEPTH} levels")
    elif isinstance(value, dict):
        for key, below in value.items():
            if not key or len(key.encode(errors="surrogatepass")) > MAX_KEY_BYTES or _FORBIDDEN_IN_KEY.search(key):
                yield Fault(
                    (*path, key),
                    f"{key[:80]!r} is not a property name",
                    "names have at most 1 KB and no control characters, dots, $ or spaces",
                )
            else:
                yield from faults(below, (*path, key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from faults(below, (*path, index))
    elif isinstance(value, str) and len(value.encode(errors="surrogatepass")) > MAX_STRING_BYTES:
        yield Fault(path, f"is a string over {MAX_STRING_BYTES} bytes")
    elif isinstance(value, int) and not isinstance(value, bool) and not MIN_INTEGER <= value <= MAX_INTEGER:
        yield Fault(path, "is an integer outside the 53 bits a twin can hold")


def place(path: Path) -> str:
    """A path as people write it.

    >>> place(("apps", "list", 0))
    'apps.list[0]'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part[:80]}" for part in path).removeprefix(".")


def size_bytes(value: object) -> int:
    """What counts against a limit: names and strings in UTF-8 without control characters, numbers 8, booleans 4.

    >>> size_bytes({"name": "Zürich", "list": [1, True, {"a": 2.5}]})
    36
    """
    if isinstance(value, dict):
        return sum(size_bytes(key) + size_bytes(below) for key, below in value.items())
    if isinstance(value, list):
        return sum(map(size_bytes, value))
    if isinstance(value, str):
        return len(_CONTROL.sub("", value).encode(errors="surrogatepass"))
    return 0 if value is None else 4 if isinstance(value, bool) else 8
