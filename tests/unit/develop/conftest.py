from __future__ import annotations

from pathlib import Path

import pytest
from wasmtime import wat2wasm

from edgeclave.cli.main import run
from tests.fixtures.softhsm import Token, make_token
from tests.fixtures.wat.packages import MINIMAL

MANIFEST = """
name = "meter"
version = "1.0.0"
product_id = 5
security_version = 2
services = ["emit", "log", "storage", "random"]
[methods.echo]
[methods.store]
[methods.fail]
[methods.publish]
[methods.trap]
[methods.note]
[outputs.out]
recipient_authority = "reader-authority"
"""


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The key folder of all commands of a test, with the recipient authority that the manifest names."""
    folder = tmp_path / "keys"
    monkeypatch.setenv("EDGECLAVE_KEYS", str(folder))
    assert run(["keys", "new", "reader-authority"]) == 0
    return folder


@pytest.fixture
def project(tmp_path: Path, keys: Path) -> Path:
    """A project whose code is there already: a component written by hand."""
    folder = tmp_path / "meter"
    (folder / "build").mkdir(parents=True)
    (folder / "ta.toml").write_text(MANIFEST)
    (folder / "build" / "meter.wasm").write_bytes(bytes(wat2wasm(MINIMAL.read_text())))
    return folder


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    return make_token(tmp_path_factory.mktemp("softhsm") / "hsm")
