from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasmtime import wat2wasm
from wasmtime.component import Component

from edgeclave.errors import PackageError
from edgeclave.ta.imports import Interface, component_interface
from tests.fixtures.engines import single_threaded_engine

HEADER = b"\0asm\x0d\x00\x01\x00"
# (import "a:b/c" (instance (type 0))) and (import "t" (type (eq 0))); (export "invoke" (func 0))
IMPORTS = b"\x0a\x10\x02\x00\x05a:b/c\x05\x00\x00\x01t\x03\x00\x00"
EXPORTS = b"\x0b\x0c\x01\x00\x06invoke\x01\x00\x00"


def test_names_are_read_and_types_left_out() -> None:
    assert component_interface(HEADER + b"\x00\x02xy" + IMPORTS + EXPORTS) == Interface(("a:b/c",), ("invoke",))


def test_it_agrees_with_the_compiler() -> None:
    wasm = wat2wasm("""
        (component
          (import "edgeclave:ta/tee@1.0.0" (instance $tee
            (export "ask" (func (param "at" u8) (result string)))))
          (type $point (record (field "x" u32)))
          (import "point" (type (eq $point)))
          (import "handle" (type (sub resource)))
          (import "plain" (func (param "n" u32)))
          (core module $m (func (export "run")))
          (core instance $i (instantiate $m))
          (func $run (canon lift (core func $i "run")))
          (export "invoke" (func $run)))
    """)
    engine = single_threaded_engine()
    component = Component(engine, wasm)
    interface = component_interface(bytes(wasm))
    assert interface.imports == ("edgeclave:ta/tee@1.0.0", "plain")
    assert set(interface.imports) <= set(component.type.imports(engine)) <= {*interface.imports, "point", "handle"}
    assert set(interface.exports) == set(component.type.exports(engine)) == {"invoke"}


@pytest.mark.parametrize(
    "wasm",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"#!/bin/sh", id="a script"),
        pytest.param(HEADER + IMPORTS[:-1], id="cut off"),
        pytest.param(HEADER + b"\x0a\xff\xff\xff\xff\x0f", id="a section larger than the file"),
        pytest.param(HEADER + b"\x0a\x05\xff\xff\xff\xff\x0f", id="too many names"),
        pytest.param(HEADER + b"\x0a\x06\x80\x80\x80\x80\x80\x00", id="a number too long"),
        pytest.param(HEADER + b"\x0a\x04\x01\x00\x01\xff", id="a name that is not Unicode"),
    ],
)
def test_what_cannot_be_read_is_refused(wasm: bytes) -> None:
    with pytest.raises(PackageError, match="not-a-component"):
        component_interface(wasm)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(PackageError):
        component_interface(HEADER + content)
