"""Core modules: what is let in, what is refused and why, and the component they become."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasmtime import Store, wat2wasm
from wasmtime.component import Component, Linker

from edgeclave.errors import PackageError
from edgeclave.ta.core_module import check_core_module, read_core_module
from edgeclave.ta.imports import component_interface
from edgeclave.ta.world import WIT_FILE, WORLD, CoreType, read_world
from edgeclave.ta.wrapping import as_component
from tests.fixtures.engines import single_threaded_engine

MEMORY = '(memory (export "memory") 1)'
REALLOC = '(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))'
INVOKE = """(func (export "invoke") (param i32 i32 i32 i32) (result i32)
  (i32.store (i32.const 4) (local.get 2)) (i32.store (i32.const 8) (local.get 3)) (i32.const 0))"""
POST_RETURN = '(func (export "cabi_post_invoke") (param i32))'
TEE = WORLD.interface


def module(*parts: str) -> bytes:
    return bytes(wat2wasm(f"(module {' '.join(parts)})"))


def imported(name: str, type_: CoreType, source: str = TEE) -> str:
    params, results = (" ".join(f"({word} {kind})" for kind in kinds) for word, kinds in
                       (("param", type_.params), ("result", type_.results)))  # fmt: skip
    return f'(import "{source}" "{name}" (func {params} {results}))'


GOOD = module(MEMORY, REALLOC, INVOKE, POST_RETURN)
EVERYTHING = module(*(imported(n, f.lowered) for n, f in WORLD.functions.items()), MEMORY, REALLOC, INVOKE, POST_RETURN)


def test_the_wit_is_read_as_it_stands() -> None:
    functions = re.findall(r"^  ([a-z-]+): func", WIT_FILE.read_text(), re.MULTILINE)
    assert list(WORLD.functions) == functions
    assert TEE == "edgeclave:ta/tee@1.0.0"
    # Flattened by hand from the WIT, following CanonicalABI.md.
    assert WORLD.functions["seal"].lowered == CoreType(("i32",) * 6, ())
    assert WORLD.functions["log"].lowered == CoreType(("i32",) * 3, ())
    assert WORLD.functions["host-time"].lowered == CoreType((), ("i64",))
    assert WORLD.functions["caller"].lowered == CoreType(("i32",), ())
    assert WORLD.exports["invoke"].lifted == CoreType(("i32",) * 4, ("i32",))
    assert WORLD.types["seal-policy"].definition == '(enum "unique" "product")'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "package a:b@1.0.0;",
        "package a:b@1.0.0;\ninterface i { f: func(x: list<u8>); } world w { import i; }",
        "package a:b@1.0.0;\ninterface i { f: func() -> float64; } world w { import i; }",
        "package a:b@1.0.0;\ninterface i { f: func(x: u32",
    ],
)
def test_a_wit_that_is_not_understood_is_a_defect(text: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        read_world(text)


@pytest.mark.parametrize("wasm", [GOOD, EVERYTHING, module(MEMORY, REALLOC, INVOKE)], ids=["pure", "all", "no post"])
def test_a_core_module_becomes_a_component_of_the_wit(wasm: bytes) -> None:
    wrapped = as_component(wasm)
    assert wrapped == as_component(wasm), "deterministic"
    assert wasm in wrapped
    assert as_component(wrapped) == wrapped, "a component stays as it is"
    component = Component(single_threaded_engine(), wrapped)
    assert list(component.type.imports(single_threaded_engine())) == ([TEE] if wasm is EVERYTHING else [])
    assert component_interface(wasm).imports == ((TEE,) if wasm is EVERYTHING else ())
    assert {"invoke", "memory", "cabi_realloc"} <= set(component_interface(wasm).exports)


def test_it_runs() -> None:
    engine = single_threaded_engine()
    store = Store(engine)
    invoke = Linker(engine).instantiate(store, Component(engine, as_component(GOOD))).get_func(store, "invoke")
    assert invoke is not None
    assert invoke(store, "any", '{"é": 1}') == '{"é": 1}'


UNIT = CoreType((), ())


@pytest.mark.parametrize(
    ("wasm", "code", "says"),
    [
        pytest.param(
            module(
                imported("fd_write", CoreType(("i32",) * 4, ("i32",)), "wasi_snapshot_preview1"),
                MEMORY,
                REALLOC,
                INVOKE,
            ),
            "import-refused",
            "wasi_snapshot_preview1 fd_write",
            id="WASI",
        ),
        pytest.param(
            module(imported("printf", UNIT, "env"), MEMORY, REALLOC, INVOKE),
            "import-refused",
            "env printf",
            id="a function of the host",
        ),
        pytest.param(
            module(imported("log", WORLD.functions["log"].lowered, "edgeclave:ta/tee@2.0.0"), MEMORY, REALLOC, INVOKE),
            "import-refused",
            "another version of the WIT",
            id="another version of the WIT",
        ),
        pytest.param(
            module(imported("open", UNIT), MEMORY, REALLOC, INVOKE),
            "import-refused",
            "no function open",
            id="a function that is not in the WIT",
        ),
        pytest.param(
            module(imported("log", UNIT), MEMORY, REALLOC, INVOKE),
            "import-refused",
            "() -> (), the WIT makes it (i32, i32, i32) -> ()",
            id="a service of another type",
        ),
        pytest.param(
            module(f'(import "{TEE}" "log" (global i32))', MEMORY, REALLOC, INVOKE),
            "import-refused",
            "no global log",
            id="a global of the TEE",
        ),
        pytest.param(
            module(f'(import "{TEE}" "memory" (memory 1))', '(export "memory" (memory 0))', REALLOC),
            "import-refused",
            "no memory memory",
            id="an imported memory",
        ),
        pytest.param(module('(import "a" "t" (table 1 funcref))'), "import-refused", "a t", id="an imported table"),
        pytest.param(module(MEMORY, REALLOC), "no-invoke", "no function `invoke`", id="no invoke"),
        pytest.param(
            module(MEMORY, REALLOC, '(global (export "invoke") i32 (i32.const 0))'),
            "no-invoke",
            "no function `invoke`",
            id="invoke is no function",
        ),
        pytest.param(
            module(MEMORY, REALLOC, '(func (export "invoke"))'),
            "no-invoke",
            "`invoke` is () -> (), the canonical ABI makes it (i32, i32, i32, i32) -> (i32)",
            id="wrong invoke",
        ),
        pytest.param(module(MEMORY, INVOKE), "core-module-refused", "no function `cabi_realloc`", id="no realloc"),
        pytest.param(
            module(MEMORY, INVOKE, REALLOC, '(func (export "cabi_post_invoke"))'),
            "core-module-refused",
            "`cabi_post_invoke` is () -> ()",
            id="wrong post-return",
        ),
        pytest.param(
            module(REALLOC, '(func (export "invoke") (param i32 i32 i32 i32) (result i32) unreachable)'),
            "core-module-refused",
            "must have one memory",
            id="no memory",
        ),
        pytest.param(
            module("(memory 1)", REALLOC, INVOKE),
            "core-module-refused",
            "export it as `memory`",
            id="a memory of its own",
        ),
        pytest.param(
            module('(memory (export "memory") 1)', "(memory 1)", REALLOC, INVOKE),
            "core-module-refused",
            "2 memories, the limit is 1",
            id="two memories",
        ),
        pytest.param(
            module('(memory (export "memory") 1 1 shared)', REALLOC, INVOKE),
            "core-module-refused",
            "shared",
            id="shared memory",
        ),
        pytest.param(
            module(MEMORY, REALLOC, INVOKE, "(func $f) (start $f)"),
            "core-module-refused",
            "start function",
            id="a start function",
        ),
        pytest.param(
            module(MEMORY, REALLOC, INVOKE, '(func (export "_initialize"))'),
            "core-module-refused",
            "`_initialize`",
            id="a reactor",
        ),
        pytest.param(
            module(MEMORY, REALLOC, INVOKE, "(type (struct))"),
            "core-module-refused",
            "types other than those of functions",
            id="garbage-collected types",
        ),
        pytest.param(GOOD + b"\x01\x01\x00", "core-module-refused", "section 1 stands twice", id="types twice"),
        pytest.param(GOOD + b"\0\0" * 100_001, "core-module-refused", "more than 100000 sections", id="many sections"),
        pytest.param(GOOD[:-40], "core-module-refused", "cut off", id="cut off"),
        pytest.param(b"\0asm\x01\0\0\0\x02\xff\xff\xff\xff\x0f", "core-module-refused", "cut off", id="a huge section"),
        pytest.param(
            b"\0asm\x01\0\0\0\x02\x05\xff\xff\xff\xff\x0f", "core-module-refused", "the limit is", id="imports"
        ),
        pytest.param(
            b"\0asm\x01\0\0\0\x01\x04\x01\x60\xff\x7f", "core-module-refused", "the limit is", id="parameters"
        ),
        pytest.param(
            b"\0asm\x01\0\0\0\x07\x05\x01\x01\xff\x00\x00", "core-module-refused", "cannot be read", id="name"
        ),
        pytest.param(b"hello", "not-a-component", "not WebAssembly", id="no WebAssembly"),
    ],
)
def test_what_is_refused_and_why(wasm: bytes, code: str, says: str) -> None:
    with pytest.raises(PackageError) as error:
        as_component(wasm)
    assert error.value.code == code
    assert says in error.value.what
    assert error.value.advice


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(PackageError):
        read_core_module(b"\0asm\x01\0\0\0" + content)


@given(st.lists(st.tuples(st.integers(0, len(EVERYTHING) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_what_passes_the_check_is_wrapped_whatever_was_changed_in_it(changes: list[tuple[int, int]]) -> None:
    altered = bytearray(EVERYTHING)
    for position, value in changes:
        altered[position] = value
    with contextlib.suppress(PackageError):
        check_core_module(bytes(altered))
        as_component(bytes(altered))
