"""Whether a core module (C, Rust, Zig) is a trusted application: the canonical ABI of the WIT, and nothing more.

The rules, denying by default; `docs/abi.md` explains them to who writes one:

- every import is a function of `edgeclave:ta/tee@1.0.0` with the type that follows from the WIT;
- it exports its one memory as `memory`, `cabi_realloc`, `invoke`, and where it wants to be told that a reply was read,
  `cabi_post_invoke`, each with its type;
- no start function, `_start` or `_initialize`: code runs only when it is called, under a deadline;
- one memory, of its own, 32-bit and not shared.

That the code itself is valid is left to the compiler.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeclave.errors import PackageError
from edgeclave.ta.binary import CORE_MODULE, Reader, sections
from edgeclave.ta.world import WORLD, CoreType

MAX_TYPES = 10_000
MAX_PARAMETERS = 1_000  # of one type, and as many results; the limit of WebAssembly's own JavaScript API
MAX_IMPORTS = 1_000  # the WIT has 14 functions
MAX_FUNCTIONS = 200_000
MAX_EXPORTS = 10_000
MAX_MEMORIES = 1

REALLOC, POST_RETURN, INVOKE, MEMORY = "cabi_realloc", "cabi_post_invoke", "invoke", "memory"
EXPORTS = {
    INVOKE: WORLD.exports["invoke"].lifted,
    REALLOC: CoreType(("i32",) * 4, ("i32",)),
    POST_RETURN: CoreType(("i32",), ()),
}
"""The functions a core module may export to the enclave. All but `cabi_post_invoke` must be there."""

_CUSTOM, _TYPE, _IMPORT, _FUNCTION, _MEMORY, _EXPORT, _START = 0, 1, 2, 3, 5, 7, 8
_FUNCTION_TYPE = 0x60
_VALUES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128", 0x70: "funcref", 0x6F: "externref"}
_KINDS = ("func", "table", "memory", "global", "tag")
_MAX_TYPE_CHARACTERS = 200  # of a type in an error
_NEVER_CALLED = ("_initialize", "_start")


@dataclass(frozen=True)
class Import:
    """`type` is None for what is no function."""

    module: str
    name: str
    kind: str
    type: CoreType | None


@dataclass
class CoreModule:
    """What a core module says about itself; `exports` maps names to kind and index."""

    imports: list[Import] = field(default_factory=list)
    exports: dict[str, tuple[str, int]] = field(default_factory=dict)
    functions: list[CoreType] = field(default_factory=list)
    memories: list[int] = field(default_factory=list)
    has_start: bool = False

    def exported_function(self, name: str) -> CoreType | None:
        kind, index = self.exports.get(name, ("", 0))
        return self.functions[index] if kind == "func" and index < len(self.functions) else None


def read_core_module(wasm: bytes) -> CoreModule:
    """Reads names and types. Raises PackageError `core-module-refused` for what cannot be read."""
    if not wasm.startswith(CORE_MODULE):
        raise _refused("it is not a core module")
    try:
        return _read(wasm)
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise _refused(f"its sections cannot be read: {error}") from error


def check_core_module(wasm: bytes) -> CoreModule:
    """Raises PackageError `import-refused`, `no-invoke`, `core-module-refused`."""
    module = read_core_module(wasm)
    for imported in module.imports:
        _check_import(imported)
    if module.has_start:
        raise _refused("it has a start function, which would run before it may ask anything of the TEE")
    for name in _NEVER_CALLED:
        if name in module.exports:
            raise _refused(f"it exports `{name}`, which nothing would call", _TARGET_ADVICE)
    if len(module.memories) != 1 or module.exports.get(MEMORY) != ("memory", 0):
        raise _refused("it must have one memory and export it as `memory`")
    if module.memories[0] & ~1:
        raise _refused("its memory is shared or 64-bit")
    for name, type_ in EXPORTS.items():
        if name in module.exports or name != POST_RETURN:
            _check_export(module, name, type_)
    return module


def _check_import(imported: Import) -> None:
    where = f"{imported.module} {imported.name}"[:200]
    if imported.module != WORLD.interface:
        same = imported.module.partition("@")[0] == WORLD.interface.partition("@")[0]
        raise PackageError(
            "import-refused",
            f"the trusted application imports {where}"
            + (f", of another version of the WIT than {WORLD.interface}" if same else ", which no TEE offers it"),
            where="Wasm",
            advice="build it against this release" if same else _TARGET_ADVICE,
        )
    function = WORLD.functions.get(imported.name)
    if function is None or imported.kind != "func":
        raise PackageError(
            "import-refused",
            f"the WIT has no {'function' if imported.kind == 'func' else imported.kind} {imported.name[:100]}",
            where="Wasm",
            advice=f"import only functions of {WORLD.interface}",
        )
    if imported.type != function.lowered:
        raise PackageError(
            "import-refused",
            f"{imported.name} is imported as {_text(imported.type)}, the WIT makes it {_text(function.lowered)}",
            where="Wasm",
            advice="docs/abi.md shows the type of each function",
        )


def _check_export(module: CoreModule, name: str, type_: CoreType) -> None:
    found = module.exported_function(name)
    if found == type_:
        return
    what = (
        f"it exports no function `{name}`"
        if found is None
        else f"`{name}` is {_text(found)}, the canonical ABI makes it {_text(type_)}"
    )
    if name != INVOKE:
        raise _refused(what)
    raise PackageError("no-invoke", what, where="Wasm", advice=_ABI_ADVICE)


def _read(wasm: bytes) -> CoreModule:
    module = CoreModule()
    types: list[CoreType] = []
    seen: set[int] = set()
    for section, content in sections(wasm):
        if section != _CUSTOM and section in seen:
            raise ValueError(f"section {section} stands twice")  # each limit below is for all of its kind
        seen.add(section)
        reader = Reader(content)
        if section == _TYPE:
            types += [_function_type(reader) for _ in range(reader.count(MAX_TYPES, "types"))]
        elif section == _IMPORT:
            for _ in range(reader.count(MAX_IMPORTS, "imports")):
                _add_import(module, reader, types)
        elif section == _FUNCTION:
            for _ in range(reader.count(MAX_FUNCTIONS, "functions")):
                module.functions.append(types[reader.number()])
        elif section == _MEMORY:
            for _ in range(reader.count(MAX_MEMORIES, "memories")):
                module.memories.append(_skip_limits(reader))
        elif section == _EXPORT:
            for _ in range(reader.count(MAX_EXPORTS, "exports")):
                name = reader.name()
                module.exports[name] = (_KINDS[reader.byte()], reader.number())
        elif section == _START:
            module.has_start = True
    return module


def _function_type(reader: Reader) -> CoreType:
    if reader.byte() != _FUNCTION_TYPE:
        raise ValueError("it has types other than those of functions")
    params = _value_types(reader)
    return CoreType(params, _value_types(reader))


def _value_types(reader: Reader) -> tuple[str, ...]:
    return tuple(_value_type(reader.byte()) for _ in range(reader.count(MAX_PARAMETERS, "parameters")))


def _value_type(code: int) -> str:
    if code not in _VALUES:
        raise ValueError(f"there is no value type {code:#x}")
    return _VALUES[code]


def _add_import(module: CoreModule, reader: Reader, types: list[CoreType]) -> None:
    source, name, kind = reader.name(), reader.name(), _KINDS[reader.byte()]
    type_ = None
    if kind == "func":
        type_ = types[reader.number()]
        module.functions.append(type_)
    elif kind == "table":
        reader.byte()
        _skip_limits(reader)
    elif kind == "memory":
        _skip_limits(reader)
    else:
        reader.take(2)
    module.imports.append(Import(source, name, kind, type_))


def _skip_limits(reader: Reader) -> int:
    """Returns the flags: bit 0 says that there is a maximum."""
    flags = reader.byte()
    for _ in range(1 + (flags & 1)):
        reader.number()
    return flags


def _text(type_: CoreType | None) -> str:
    if type_ is None:
        return "no function"
    return f"({', '.join(type_.params)}) -> ({', '.join(type_.results)})"[:_MAX_TYPE_CHARACTERS]


_ABI_ADVICE = "docs/abi.md shows what a core module must export"
_TARGET_ADVICE = "compile for a target without an operating system: wasm32-freestanding, wasm32-unknown-unknown"


def _refused(what: str, advice: str = _ABI_ADVICE) -> PackageError:
    return PackageError("core-module-refused", f"the core module is refused: {what}", where="Wasm", advice=advice)
