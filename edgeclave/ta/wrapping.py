"""A core module becomes a component, so that the enclave has one way of calling.

The component imports the services that the module imports, lowers them to core functions, and lifts `invoke`. Lowering
needs the module's memory, and the module needs its imports before it has one; so it is first given stand-ins that call
through a table, which is filled once the memory is there.

The text is assembled by wasmtime, which runs the component anyway. The module's bytes go in as they are. The result
depends on the module, the WIT and nothing else; what is measured and signed is the core module alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from wasmtime import wat2wasm

from edgeclave.errors import PackageError
from edgeclave.ta.binary import COMPONENT, CORE_MODULE, encode_number
from edgeclave.ta.core_module import INVOKE, MEMORY, POST_RETURN, REALLOC, check_core_module
from edgeclave.ta.world import WORLD, CoreType

_CORE_MODULE_SECTION = b"\x01"
_PLACE = COMPONENT + _CORE_MODULE_SECTION + encode_number(len(CORE_MODULE)) + CORE_MODULE


def as_component(wasm: bytes) -> bytes:
    """The component to run: a component as it is, a core module wrapped.

    Raises:
        PackageError: `not-a-component`, `import-refused`, `no-invoke`, `core-module-refused`.
    """
    if wasm.startswith(COMPONENT):
        return wasm
    if wasm.startswith(CORE_MODULE):
        return _wrap(wasm)
    raise PackageError(
        "not-a-component", "the code in the package is not WebAssembly", where="Wasm", advice="build it again"
    )


def _wrap(wasm: bytes) -> bytes:
    module = check_core_module(wasm)
    imported = sorted({one.name for one in module.imports})
    around = bytes(wat2wasm(_text(imported, tells_when_read=POST_RETURN in module.exports)))
    assert around.startswith(_PLACE)  # the empty module that `_text` begins with
    return COMPONENT + _CORE_MODULE_SECTION + encode_number(len(wasm)) + wasm + around[len(_PLACE) :]


def _text(imported: list[str], *, tells_when_read: bool) -> str:
    options = "(memory $memory) (realloc $realloc)"
    post_return = f'(post-return (core func $app "{POST_RETURN}"))' if tells_when_read else ""
    return f"""(component
  (core module)
  {_import(imported) if imported else ""}
  {_stand_ins(imported)}
  (core instance $stand-ins (instantiate $stand-ins))
  (core instance $app (instantiate 0 (with "{WORLD.interface}" (instance $stand-ins))))
  (alias core export $app "{MEMORY}" (core memory $memory))
  (alias core export $app "{REALLOC}" (core func $realloc))
  {_lines(f'(core func ${name} (canon lower (func $tee "{name}") {options}))' for name in imported)}
  {_filling(imported)}
  (core instance (instantiate $filling
    (with "stand-ins" (instance $stand-ins))
    (with "tee" (instance {_lines(f'(export "{name}" (func ${name}))' for name in imported)}))))
  {_lines(f'(type ${n} {t.definition}) (export $exported-{n} "{n}" (type ${n}))' for n, t in WORLD.exported.items())}
  (func $invoke {_with_exported_types(WORLD.exports[INVOKE].text)}
    (canon lift (core func $app "{INVOKE}") {options} {post_return}))
  (export "{INVOKE}" (func $invoke)))"""


def _import(names: list[str]) -> str:
    types = _lines(
        f'(type $is-{name} {named.definition}) (export "{name}" (type ${name} (eq $is-{name})))'
        for name, named in WORLD.types.items()
    )
    functions = _lines(f'(export "{name}" (func {WORLD.functions[name].text}))' for name in names)
    return f'(import "{WORLD.interface}" (instance $tee {types} {functions}))'


def _stand_ins(names: list[str]) -> str:
    functions = []
    for index, name in enumerate(names):
        lowered = WORLD.functions[name].lowered
        arguments = " ".join(f"(local.get {position})" for position in range(len(lowered.params)))
        call = f"(call_indirect {_signature(lowered)} {arguments} (i32.const {index}))"
        functions.append(f'(func (export "{name}") {_signature(lowered)} {call})')
    size = len(names)
    return f'(core module $stand-ins (table (export "table") {size} {size} funcref) {_lines(functions)})'


def _filling(names: list[str]) -> str:
    imports = (f'(import "tee" "{n}" (func ${n} {_signature(WORLD.functions[n].lowered)}))' for n in names)
    size = len(names)
    return f"""(core module $filling
    (import "stand-ins" "table" (table {size} {size} funcref)) {_lines(imports)}
    (elem (i32.const 0) func {" ".join(f"${name}" for name in names)}))"""


def _signature(type_: CoreType) -> str:
    return "".join(f"(param {kind})" for kind in type_.params) + "".join(f"(result {kind})" for kind in type_.results)


def _with_exported_types(text: str) -> str:
    """A function that is exported must name the types as they are exported."""
    for name in WORLD.exported:
        text = text.replace(f"${name}", f"$exported-{name}")
    return text


def _lines(parts: Iterable[str]) -> str:
    return "\n    ".join(parts)
