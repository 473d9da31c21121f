"""Names of what a trusted application's Wasm imports and exports, read from its outermost sections, not compiled.

Binary format of components: WebAssembly/component-model, design/mvp/Binary.md. For people who inspect a package; what
may really be imported is decided by the enclave when it links the component, and for core modules in `core_module`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeclave.errors import PackageError
from edgeclave.ta.binary import COMPONENT, CORE_MODULE, Reader, sections
from edgeclave.ta.core_module import read_core_module

_IMPORT_SECTION, _EXPORT_SECTION = 10, 11
_CORE_SORT = 0x00
_TYPE, _VALUE = 0x03, 0x02
MAX_NAMES = 10_000


@dataclass(frozen=True)
class Interface:
    """Names as in the Wasm, in its order, such as `edgeclave:ta/tee@1.0.0`."""

    imports: tuple[str, ...]
    exports: tuple[str, ...]


def component_interface(wasm: bytes) -> Interface:
    """The interface of a component, or of a core module, whose imports are named by module.

    Raises:
        PackageError: `not-a-component`, `core-module-refused`.
    """
    if wasm.startswith(CORE_MODULE):
        module = read_core_module(wasm)
        return Interface(tuple(dict.fromkeys(one.module for one in module.imports)), tuple(module.exports))
    if not wasm.startswith(COMPONENT):
        raise _refused("this is not WebAssembly")
    imports: list[str] = []
    exports: list[str] = []
    try:
        for section, content in sections(wasm):
            if section == _IMPORT_SECTION:
                imports += _names(content, exported=False)
            elif section == _EXPORT_SECTION:
                exports += _names(content, exported=True)
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise _refused(f"its sections cannot be read: {error}") from error
    return Interface(tuple(imports), tuple(exports))


def _names(content: memoryview, *, exported: bool) -> Iterator[str]:
    reader = Reader(content)
    for _ in range(reader.count(MAX_NAMES, "names in one section")):
        reader.byte()  # form of the name
        name = reader.name()
        if exported:
            sort = _skip_sort(reader)
            reader.number()
            if reader.byte():  # a type is ascribed
                _skip_description(reader)
        else:
            sort = _skip_description(reader)
        if sort != _TYPE:  # a type gives access to nothing
            yield name


def _skip_sort(reader: Reader) -> int:
    sort = reader.byte()
    if sort == _CORE_SORT:
        reader.byte()
    return sort


def _skip_description(reader: Reader) -> int:
    sort = _skip_sort(reader)
    # A type is equal to another (0, and which), or a fresh resource (1).
    if sort == _VALUE:
        raise ValueError("it has values, which no toolchain makes")
    if sort != _TYPE or reader.byte() == 0:
        reader.number()
    return sort


def _refused(what: str) -> PackageError:
    return PackageError("not-a-component", what, where="Wasm", advice="build it with `edgeclave ta build`")
