"""Cuts a condition into tokens that know their column."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edgeclave.errors import ConfigurationError

TokenKind = Literal["text", "number", "operator", "word", "end"]

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\]|\\[\"'\\]|\\u[0-9A-Fa-f]{4})*'|\"(?:[^\"\\]|\\[\"'\\]|\\u[0-9A-Fa-f]{4})*\")"
    r"|(?P<number>(?:0[xX][0-9A-Fa-f]+|(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.]))"
    r"|(?P<operator><=|>=|<>|!=|\|\||\?\?|[=<>()\[\],+*/%{}-])"
    r"|(?P<word>(?:\$[\w$\-]+|[^\W\d][\w$\-]*)(?:\.[\w$\-]+|\['[^']+'\]|\[\d+\])*))"
)
_ESCAPE = re.compile(r"\\(?:u(?P<code>[0-9A-Fa-f]{4})|(?P<other>.))")
_CLOSED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)


@dataclass(frozen=True)
class Token:
    """`column` counts from 1 in what the user wrote."""

    kind: TokenKind
    text: str
    column: int

    def __str__(self) -> str:
        return repr(self.text) if self.text else "its end"


def bad_condition(what: str, where: str, column: int, *, advice: str = "") -> ConfigurationError:
    """Without a place of its own the column stands in the sentence."""
    if not where:
        return ConfigurationError("bad-condition", f"{what}, at column {column}", advice=advice)
    return ConfigurationError("bad-condition", what, where=f"{where}, column {column}", advice=advice)


def tokens_of(text: str, where: str, first_column: int) -> list[Token]:
    """Ends with an `end` token. Raises ConfigurationError `bad-condition`."""
    tokens: list[Token] = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            at = position + len(text[position:]) - len(text[position:].lstrip())
            raise bad_condition(_unreadable(text[at:]), where, first_column + at)
        kind = next(kind for kind in ("text", "number", "operator", "word") if match[kind] is not None)
        tokens.append(Token(kind, match[kind], first_column + match.start(kind)))  # type: ignore[arg-type]
        position = match.end()
    return [*tokens, Token("end", "", first_column + len(text))]


def unescaped(literal: str) -> str:
    """The text between the quotes."""
    return _ESCAPE.sub(lambda match: chr(int(match["code"], 16)) if match["code"] else match["other"], literal[1:-1])


def number_of(literal: str) -> float:
    if literal[:2].lower() == "0x":
        return float(min(int(literal, 16), 2**1023))
    return float(literal)


def _unreadable(rest: str) -> str:
    if rest[0] not in "'\"":
        return f"cannot read the condition at {rest[:40]!r}"
    if _CLOSED.match(rest):
        return f"a text has an escape that is none of \\', \\\", \\\\ and \\uXXXX: {rest[:40]!r}"
    return f"a text is not closed: {rest[:40]!r}"
