"""The WIT as values: what a trusted application may import and must export, with the core types that follow from it.

Read from the one file, `wit/edgeclave-ta.wit`, so that what is checked and what is wrapped cannot drift from what the
toolchains are given. Only the part of the WIT language that this world uses is understood; anything else in the file is
a defect and raises ValueError at import. How values become core numbers: WebAssembly/component-model,
design/mvp/CanonicalABI.md, "Flattening".

>>> WORLD.interface
'edgeclave:ta/tee@1.0.0'
>>> WORLD.functions["random"].lowered
CoreType(params=('i32', 'i32'), results=())
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

WIT_FILE = Path(__file__).parent / "wit" / "edgeclave-ta.wit"
_MAX_FLAT_PARAMS = 16
_SCALARS = {"bool": "i32", "u8": "i32", "u16": "i32", "u32": "i32", "u64": "i64"}
_TOKEN = re.compile(r"->|[A-Za-z_][A-Za-z0-9-]*|[{}()<>:;,]")


@dataclass(frozen=True)
class CoreType:
    """The type of a core function: `i32` and `i64` only."""

    params: tuple[str, ...]
    results: tuple[str, ...]


@dataclass(frozen=True)
class Scalar:
    """`string` or a number."""

    text: str

    def flat(self) -> tuple[str, ...]:
        return ("i32", "i32") if self.text == "string" else (_SCALARS[self.text],)


@dataclass(frozen=True)
class Named:
    """A record (fields) or an enum (cases without types)."""

    name: str
    members: tuple[tuple[str, Type | None], ...]

    @property
    def text(self) -> str:
        return f"${self.name}"

    @property
    def definition(self) -> str:
        """In WebAssembly's text format."""
        if all(kind is None for _, kind in self.members):
            cases = (f'"{name}"' for name, _ in self.members)
            return f"(enum {' '.join(cases)})"
        fields = (f'(field "{name}" {kind.text})' for name, kind in self.members if kind is not None)
        return f"(record {' '.join(fields)})"

    def flat(self) -> tuple[str, ...]:
        return _flatten(kind for _, kind in self.members if kind is not None) or ("i32",)


@dataclass(frozen=True)
class Cases:
    """`option<ok>` (no error) or `result<ok, error>`."""

    keyword: str
    ok: Type | None
    error: Type | None

    @property
    def text(self) -> str:
        parts = [self.keyword, self.ok.text if self.ok else "", f"(error {self.error.text})" if self.error else ""]
        return f"({' '.join(part for part in parts if part)})"

    def flat(self) -> tuple[str, ...]:
        joined: list[str] = []
        for case in (self.ok, self.error):
            for position, kind in enumerate(case.flat() if case else ()):
                if position == len(joined):
                    joined.append(kind)
                elif joined[position] != kind:
                    joined[position] = "i64"
        return ("i32", *joined)


Type = Scalar | Named | Cases


@dataclass(frozen=True)
class Function:
    """A function of the WIT."""

    params: tuple[tuple[str, Type], ...]
    result: Type | None

    @property
    def text(self) -> str:
        """Its parameters and result in WebAssembly's text format."""
        params = "".join(f'(param "{name}" {kind.text})' for name, kind in self.params)
        return params + (f"(result {self.result.text})" if self.result else "")

    @property
    def lowered(self) -> CoreType:
        """As a core module imports it: a result of several numbers is written where the last parameter points."""
        params, results = self._flat()
        return CoreType((*params, "i32"), ()) if len(results) > 1 else CoreType(params, results)

    @property
    def lifted(self) -> CoreType:
        """As a core module exports it: a result of several numbers lies where the returned pointer points."""
        params, results = self._flat()
        return CoreType(params, ("i32",) if len(results) > 1 else results)

    def _flat(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        params = _flatten(kind for _, kind in self.params)
        if len(params) > _MAX_FLAT_PARAMS:
            raise ValueError("so many parameters would be passed in memory, which is not implemented")
        return params, self.result.flat() if self.result else ()


@dataclass(frozen=True)
class World:
    """`interface` is the name under which the TEE is imported; `exported` are the types that `exports` need."""

    interface: str
    types: dict[str, Named] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    exported: dict[str, Named] = field(default_factory=dict)
    exports: dict[str, Function] = field(default_factory=dict)


def read_world(text: str) -> World:
    """Raises ValueError for what this reader does not understand."""
    package = re.search(r"^package (?P<name>[a-z:]+)@(?P<version>[0-9.]+);$", text, re.MULTILINE)
    if package is None:
        raise ValueError("the WIT names no package and version")
    return _Parser(re.sub(r"//[^\n]*|^package .*$", "", text, flags=re.MULTILINE)).world(package)


def _flatten(kinds: Iterable[Type]) -> tuple[str, ...]:
    return tuple(flat for kind in kinds for flat in kind.flat())


class _Parser:
    def __init__(self, text: str) -> None:
        left_over = _TOKEN.sub("", text).strip()
        if left_over:
            raise ValueError(f"the WIT has {left_over[:20]!r}")
        self._tokens = _TOKEN.findall(text)[::-1]

    def world(self, package: re.Match[str]) -> World:
        self._expect("interface")
        interface = self._take()
        world = World(f"{package['name']}/{interface}@{package['version']}")
        self._expect("{")
        while not self._accept("}"):
            self._item(world.types, world.types, world.functions)
        self._expect("world")
        self._take()
        self._expect("{")
        for word in ("import", interface, ";"):
            self._expect(word)
        while not self._accept("}"):
            self._accept("export")
            self._item(world.exported, {**world.types, **world.exported}, world.exports)
        return world

    def _item(self, types: dict[str, Named], known: dict[str, Named], functions: dict[str, Function]) -> None:
        """One type or function."""
        word = self._take()
        if word in ("enum", "record"):
            name = self._take()
            types[name] = Named(name, self._members("{", "}", known, typed=word == "record"))
            return
        self._expect(":")
        self._expect("func")
        params = tuple((name, kind) for name, kind in self._members("(", ")", known, typed=True) if kind is not None)
        result = self._type(known) if self._accept("->") else None
        self._expect(";")
        functions[word] = Function(params, result)

    def _members(
        self, opening: str, closing: str, known: dict[str, Named], *, typed: bool
    ) -> tuple[tuple[str, Type | None], ...]:
        members: list[tuple[str, Type | None]] = []
        self._expect(opening)
        while not self._accept(closing):
            name = self._take()
            if typed:
                self._expect(":")
            members.append((name, self._type(known) if typed else None))
            self._accept(",")
        return tuple(members)

    def _type(self, known: dict[str, Named]) -> Type:
        word = self._take()
        if word in ("option", "result"):
            self._expect("<")
            ok = None if self._accept("_") else self._type(known)
            error = self._type(known) if self._accept(",") else None
            self._expect(">")
            return Cases(word, ok, error)
        if word == "string" or word in _SCALARS:
            return Scalar(word)
        return known[word]

    def _take(self) -> str:
        if not self._tokens:
            raise ValueError("the WIT ends too early")
        return str(self._tokens.pop())

    def _accept(self, word: str) -> bool:
        if self._tokens and self._tokens[-1] == word:
            self._tokens.pop()
            return True
        return False

    def _expect(self, word: str) -> None:
        found = self._take()
        if found != word:
            raise ValueError(f"the WIT has {found!r} where {word!r} was expected")


WORLD = read_world(WIT_FILE.read_text(encoding="utf-8"))
