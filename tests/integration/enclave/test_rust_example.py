"""The Rust of docs/abi.md, built by its own command and run in the emulator."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeclave.ta.core_module import EXPORTS
from edgeclave.ta.world import WORLD
from tests.fixtures.builds import REPOSITORY
from tests.fixtures.needs import missing, tool
from tests.fixtures.wat.packages import wasm_package

from .conftest import Slot, Start, call, reply, status

PAGE = (REPOSITORY / "docs" / "abi.md").read_text()
TARGET = "wasm32-unknown-unknown"


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


def rustc() -> str:
    """The first rustc that can make WebAssembly: one of rustup's may not, where Debian's can."""
    tool("wasm-ld", "lld")
    for candidate in (shutil.which("rustc"), "/usr/bin/rustc"):
        if candidate is not None and Path(candidate).exists():
            command = [candidate, "--print", "target-libdir", "--target", TARGET]
            found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
            if found and Path(found).is_dir():
                return candidate
    return missing(f"no rustc for {TARGET}: install rustc and libstd-rust-dev-wasm32", installable=True)


@pytest.fixture
def wasm(tmp_path: Path) -> bytes:
    compiler = rustc()
    (tmp_path / "counter.rs").write_text(block("rust"))
    command = shlex.split(block("sh"))
    assert command[0] == "rustc"
    subprocess.run([compiler, *command[1:]], cwd=tmp_path, check=True, timeout=100)
    return (tmp_path / "counter.wasm").read_bytes()


@pytest.mark.slow
async def test_the_rust_example_runs(start: Start, tmp_path: Path, wasm: bytes) -> None:
    methods = {name: {"channel": "any"} for name in ("count", "echo", "neither")}
    package = wasm_package(tmp_path / "package", wasm, methods=methods)
    slot = Slot()
    enclave = await start(package, slot)
    assert reply(await call(enclave, "echo", {"é": [1.5]})) == {"é": [1.5]}
    for value in (1, 2, 3):
        outcome = await call(enclave, "count")
        slot.record(outcome)
        assert reply(outcome) == value
    failed = await call(enclave, "neither")
    assert failed.failure is not None
    assert (failed.failure.status, failed.failure.message) == (404, "there is no method neither")
    await enclave.kill()
    assert reply(await call(await start(package, slot), "count")) == 4


@pytest.mark.slow
async def test_a_refused_service_is_its_failure(start: Start, tmp_path: Path, wasm: bytes) -> None:
    package = wasm_package(tmp_path / "package", wasm, methods={"count": {"channel": "any"}}, services=[])
    assert status(await call(await start(package), "count")) == 500


def test_the_page_names_each_function_with_as_many_parameters_as_it_has() -> None:
    rows = dict(re.findall(r"^\| `([a-z_-]+)`[^|]*\| `\((.*?)\) -> ", PAGE, re.MULTILINE))
    types = {name: function.lowered for name, function in WORLD.functions.items()} | EXPORTS
    assert {name: len(parameters.split(",")) if parameters else 0 for name, parameters in rows.items()} == {
        name: len(type_.params) for name, type_ in types.items()
    }
