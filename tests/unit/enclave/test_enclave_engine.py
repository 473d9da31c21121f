from __future__ import annotations

import os
from pathlib import Path

import pytest
from wasmtime import Engine, wat2wasm

from edgeclave.enclave import memory_files
from edgeclave.enclave.compilation import CompileLimits
from edgeclave.enclave.compiled_code import CompiledCode
from edgeclave.enclave.engine import CONFIGURATION, fingerprint, make_engine
from edgeclave.enclave.files import TRAILER_BYTES, CodeFile
from edgeclave.errors import PackageError
from tests.fixtures.wat.packages import MINIMAL

KEY = b"k" * 32
DIGEST = b"d" * 32
LIMITS = CompileLimits(seconds=20)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return make_engine()


@pytest.fixture(scope="module")
def wasm() -> bytes:
    return bytes(wat2wasm(MINIMAL.read_text()))


@pytest.fixture(scope="module")
def kept(wasm: bytes, engine: Engine) -> bytes:
    """What the host's memory file holds after a compilation."""
    shared = memory_files.create("compiled-code")
    try:
        CompiledCode(KEY, DIGEST, debug=False).compile(engine, wasm, shared, LIMITS)
        assert memory_files.is_unchangeable(shared)
        return os.pread(shared, 1 << 24, 0)
    finally:
        os.close(shared)


def loads(engine: Engine, content: bytes, code: CompiledCode) -> bool:
    memory = memory_files.create("compiled-code")
    try:
        os.write(memory, content)
        memory_files.make_unchangeable(memory)
        return code.load(engine, CodeFile.read(memory)) is not None
    finally:
        os.close(memory)


def test_what_was_compiled_is_loaded_again(engine: Engine, kept: bytes) -> None:
    assert loads(engine, kept, CompiledCode(KEY, DIGEST, debug=False))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        pytest.param(CompiledCode(b"x" * 32, DIGEST, debug=False), "on another device", id="another runtime or device"),
        pytest.param(CompiledCode(KEY, b"x" * 32, debug=False), "another compiler", id="another Wasm"),
        pytest.param(CompiledCode(KEY, DIGEST, debug=True), "another compiler", id="another debug state"),
    ],
)
def test_compiled_code_for_something_else_is_not_loaded(
    engine: Engine, kept: bytes, code: CompiledCode, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not loads(engine, kept, code)
    assert why in capfd.readouterr().err


def test_no_altered_byte_is_ever_loaded(engine: Engine, kept: bytes) -> None:
    code = CompiledCode(KEY, DIGEST, debug=False)
    end = len(kept)
    for position in {*range(0, end, 997), 0, end - TRAILER_BYTES, end - TRAILER_BYTES // 2, end - 1}:
        altered = bytearray(kept)
        altered[position] ^= 1
        assert not loads(engine, bytes(altered), code), position


@pytest.mark.parametrize("length", [0, 1, TRAILER_BYTES, TRAILER_BYTES + 1, 5000])
def test_a_truncated_file_is_not_loaded(engine: Engine, kept: bytes, length: int) -> None:
    assert not loads(engine, kept[:length], CompiledCode(KEY, DIGEST, debug=False))


def test_a_file_that_can_still_be_changed_is_not_looked_at(kept: bytes, tmp_path: Path) -> None:
    memory = memory_files.create("compiled-code")
    os.write(memory, kept)
    assert CodeFile.read(memory) is None
    memory_files.make_unchangeable(memory)
    assert CodeFile.read(memory) is not None
    for change in (lambda: os.pwrite(memory, b"x", 0), lambda: os.ftruncate(memory, 1)):
        with pytest.raises(PermissionError):
            change()
    os.close(memory)
    (tmp_path / "file").write_bytes(kept)
    on_disk = os.open(tmp_path / "file", os.O_RDONLY)
    assert CodeFile.read(on_disk) is None
    os.close(on_disk)


def test_a_pipe_is_no_file_of_code() -> None:
    reading, writing = os.pipe()
    assert CodeFile.read(reading) is None
    os.close(reading)
    os.close(writing)


def test_wasm_that_the_compiler_refuses_says_why(engine: Engine, wasm: bytes) -> None:
    with pytest.raises(PackageError) as refusal:
        CompiledCode(KEY, DIGEST, debug=False).compile(engine, wasm[:-3], None, LIMITS)
    assert refusal.value.code == "wasm-refused"
    assert "unexpected end" in refusal.value.what


def nested() -> bytes:
    """Blocks in blocks, far deeper than any compiler emits."""
    return bytes(wat2wasm(f"(component (core module (func {'block ' * 30_000} {'end ' * 30_000})))"))


def test_deep_nesting_harms_nobody(engine: Engine) -> None:
    compiled = CompiledCode(KEY, DIGEST, debug=False).compile(engine, nested(), None, LIMITS)
    assert list(compiled.type.imports(engine)) == []


def bomb() -> bytes:
    """A small component that takes long to compile: one function of many nested blocks and locals."""
    body = "".join(f"(local.set {n % 50} (i64.mul (local.get {n % 49}) (i64.const {n})))" for n in range(30_000))
    return bytes(wat2wasm(f'(component (core module (func (export "f") (local {"i64 " * 50}) {body})))'))


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(CompileLimits(seconds=0), id="over the time"),
        pytest.param(CompileLimits(processor_seconds=0), id="over the processor time"),
        pytest.param(CompileLimits(data_bytes=32 << 20), id="over the memory"),
    ],
)
def test_a_compile_bomb_ends_with_its_caps_and_says_nothing(
    engine: Engine, limits: CompileLimits, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PackageError) as refusal:
        CompiledCode(KEY, DIGEST, debug=False).compile(engine, bomb(), None, limits)
    assert refusal.value.code == "compile-limit"
    assert capfd.readouterr().err == ""


def test_the_fingerprint_depends_on_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint()
    fingerprint.cache_clear()
    monkeypatch.setitem(CONFIGURATION, "memory_init_cow", False)
    assert fingerprint() != before
    fingerprint.cache_clear()
