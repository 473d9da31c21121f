"""WWW-Authenticate (RFC 9110 section 11.6.1): which ways to authenticate a server offers.

>>> parse_challenges(['Bearer realm="https://r.example/token",service="r.example", Basic realm="r"'])[0].parameters
{'realm': 'https://r.example/token', 'service': 'r.example'}
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_HEADER_CHARACTERS = 8192
MAX_CHALLENGES = 8
MAX_PARAMETERS = 16
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's word for a word
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))[ \t]*(?=,|\Z)')
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+|(?=,)|\Z)")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|\Z)")
_SEPARATOR = re.compile(r"[ \t,]*")


@dataclass(frozen=True)
class Challenge:
    """`scheme` and the names of parameters are lower case. A token68 in place of parameters is left out."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of all headers, in order; what follows something malformed is left out. Never raises."""
    found: list[Challenge] = []
    for header in headers:
        found += _parse(header[:MAX_HEADER_CHARACTERS])
    return found[:MAX_CHALLENGES]


def _parse(text: str) -> list[Challenge]:
    found: list[Challenge] = []
    position = _skip(text, 0)
    while position < len(text) and len(found) < MAX_CHALLENGES:
        parameter = _PARAMETER.match(text, position)
        if parameter and found:
            parameters = found[-1].parameters
            if len(parameters) < MAX_PARAMETERS:
                value = parameter[3] if parameter[2] is None else re.sub(r"\\(.)", r"\1", parameter[2])
                parameters.setdefault(parameter[1].lower(), value)
            position = _skip(text, parameter.end())
            continue
        scheme = _SCHEME.match(text, position)
        if scheme is None:
            break
        found.append(Challenge(scheme[1].lower()))
        position = scheme.end()
        if _PARAMETER.match(text, position) is None and (token := _TOKEN68.match(text, position)):
            position = token.end()
        position = _skip(text, position)
    return found


def _skip(text: str, position: int) -> int:
    found = _SEPARATOR.match(text, position)
    return found.end() if found else position
