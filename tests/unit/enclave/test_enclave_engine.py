from __future__ import annotations

import os
from pathlib import Path

import pytest
from wasmtime import Engine, wat2wasm

from edgeclave.enclave.compilation import MAC_BYTES, CachedCode, CompiledCodeCache, CompileLimits
from edgeclave.enclave.engine import CONFIGURATION, fingerprint, make_engine
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


@pytest.fixture
def kept(tmp_path: Path, wasm: bytes, engine: Engine) -> Path:
    path = tmp_path / "compiled"
    with path.open("wb") as file:
        CompiledCodeCache(KEY, DIGEST, debug=False).compile(engine, wasm, file.fileno(), LIMITS)
    return path


def loads(engine: Engine, path: Path, cache: CompiledCodeCache) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        copied = CachedCode.copy(descriptor)
        return copied is not None and cache.load(engine, copied) is not None
    finally:
        os.close(descriptor)


def test_what_was_compiled_is_loaded_again(engine: Engine, kept: Path) -> None:
    assert loads(engine, kept, CompiledCodeCache(KEY, DIGEST, debug=False))


@pytest.mark.parametrize(
    "cache",
    [
        pytest.param(CompiledCodeCache(b"x" * 32, DIGEST, debug=False), id="another runtime or device"),
        pytest.param(CompiledCodeCache(KEY, b"x" * 32, debug=False), id="another Wasm"),
        pytest.param(CompiledCodeCache(KEY, DIGEST, debug=True), id="another debug state"),
    ],
)
def test_compiled_code_for_something_else_is_not_loaded(engine: Engine, kept: Path, cache: CompiledCodeCache) -> None:
    assert not loads(engine, kept, cache)


def test_no_altered_byte_is_ever_loaded(engine: Engine, kept: Path) -> None:
    content = kept.read_bytes()
    cache = CompiledCodeCache(KEY, DIGEST, debug=False)
    for position in {*range(0, len(content), 997), 0, MAC_BYTES, len(content) - 1}:
        altered = bytearray(content)
        altered[position] ^= 1
        kept.write_bytes(altered)
        assert not loads(engine, kept, cache), position


@pytest.mark.parametrize("length", [0, 1, MAC_BYTES, MAC_BYTES + 1, 5000])
def test_a_truncated_file_is_not_loaded(engine: Engine, kept: Path, length: int) -> None:
    kept.write_bytes(kept.read_bytes()[:length])
    assert not loads(engine, kept, CompiledCodeCache(KEY, DIGEST, debug=False))


def test_what_was_copied_can_no_longer_be_changed(kept: Path) -> None:
    descriptor = os.open(kept, os.O_RDONLY)
    copied = CachedCode.copy(descriptor)
    assert copied is not None
    for change in (lambda: os.pwrite(copied.memory, b"x", 0), lambda: os.ftruncate(copied.memory, 1)):
        with pytest.raises(PermissionError):
            change()
    os.close(copied.memory)
    os.close(descriptor)


def test_a_pipe_is_no_cache_file() -> None:
    reading, writing = os.pipe()
    assert CachedCode.copy(reading) is None
    os.close(reading)
    os.close(writing)


def test_wasm_that_the_compiler_refuses_says_why(engine: Engine, wasm: bytes) -> None:
    with pytest.raises(PackageError) as refusal:
        CompiledCodeCache(KEY, DIGEST, debug=False).compile(engine, wasm[:-3], None, LIMITS)
    assert refusal.value.code == "wasm-refused"
    assert "unexpected end" in refusal.value.what


def bomb() -> bytes:
    """A small component that takes long to compile: one function of many nested blocks and locals."""
    body = "".join(f"(local.set {n % 50} (i64.mul (local.get {n % 49}) (i64.const {n})))" for n in range(30_000))
    return bytes(wat2wasm(f'(component (core module (func (export "f") (local {"i64 " * 50}) {body})))'))


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(CompileLimits(seconds=0), id="over the time"),
        pytest.param(CompileLimits(data_bytes=64 << 20), id="over the memory"),
    ],
)
def test_a_compile_bomb_ends_with_its_caps(engine: Engine, limits: CompileLimits) -> None:
    with pytest.raises(PackageError) as refusal:
        CompiledCodeCache(KEY, DIGEST, debug=False).compile(engine, bomb(), None, limits)
    assert refusal.value.code == "compile-limit"


def test_the_fingerprint_depends_on_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint()
    fingerprint.cache_clear()
    monkeypatch.setitem(CONFIGURATION, "memory_init_cow", True)
    assert fingerprint() != before
    fingerprint.cache_clear()
