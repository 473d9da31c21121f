"""Names of what a WebAssembly component imports and exports, read from its outermost sections without compiling it.

Binary format: WebAssembly/component-model, design/mvp/Binary.md. For people who inspect a package; what may really be
imported is decided by the enclave when it links the component.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeclave.errors import PackageError

_COMPONENT = b"\0asm\x0d\x00\x01\x00"
_CORE_MODULE = b"\0asm\x01\x00\x00\x00"
_IMPORT_SECTION, _EXPORT_SECTION = 10, 11
_CORE_SORT = 0x00
_TYPE, _VALUE = 0x03, 0x02
MAX_NAMES = 10_000


@dataclass(frozen=True)
class Interface:
    """Names as in the component, in its order, such as `edgeclave:ta/tee@1.0.0`."""

    imports: tuple[str, ...]
    exports: tuple[str, ...]


def component_interface(wasm: bytes) -> Interface:
    """Raises PackageError `not-a-component`."""
    if not wasm.startswith(_COMPONENT):
        kind = "a core module, not a component" if wasm.startswith(_CORE_MODULE) else "not WebAssembly"
        raise _refused(f"this is {kind}")
    imports: list[str] = []
    exports: list[str] = []
    try:
        for section, content in _sections(wasm):
            if section == _IMPORT_SECTION:
                imports += _names(content, exported=False)
            elif section == _EXPORT_SECTION:
                exports += _names(content, exported=True)
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise _refused(f"its sections cannot be read: {error}") from error
    return Interface(tuple(imports), tuple(exports))


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self.data, self.position = data, 0

    def byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

    def number(self) -> int:
        """LEB128, unsigned, 32 bits."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number is too long")

    def take(self, size: int) -> memoryview:
        if size > len(self.data) - self.position:
            raise ValueError("it is cut off")
        self.position += size
        return self.data[self.position - size : self.position]


def _sections(wasm: bytes) -> Iterator[tuple[int, memoryview]]:
    reader = _Reader(memoryview(wasm))
    reader.take(len(_COMPONENT))
    while reader.position < len(wasm):
        section = reader.byte()
        yield section, reader.take(reader.number())


def _names(content: memoryview, *, exported: bool) -> Iterator[str]:
    reader = _Reader(content)
    count = reader.number()
    if count > MAX_NAMES:
        raise ValueError(f"{count} names in one section")
    for _ in range(count):
        reader.byte()  # form of the name
        name = bytes(reader.take(reader.number())).decode()
        if exported:
            sort = _skip_sort(reader)
            reader.number()
            if reader.byte():  # a type is ascribed
                _skip_description(reader)
        else:
            sort = _skip_description(reader)
        if sort != _TYPE:  # a type gives access to nothing
            yield name


def _skip_sort(reader: _Reader) -> int:
    sort = reader.byte()
    if sort == _CORE_SORT:
        reader.byte()
    return sort


def _skip_description(reader: _Reader) -> int:
    sort = _skip_sort(reader)
    # A type is equal to another (0, and which), or a fresh resource (1).
    if sort == _VALUE:
        raise ValueError("it has values, which no toolchain makes")
    if sort != _TYPE or reader.byte() == 0:
        reader.number()
    return sort


def _refused(what: str) -> PackageError:
    return PackageError("not-a-component", what, where="Wasm", advice="build it with `edgeclave ta build`")
