"""The examples in docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("edgeclave", "bench", *(f"modules/{name}" for name in ("enclave_broker", "sample_analytics", "ta_runner")))
OTHER_PROGRAMS = ("templates", "guest", "trusted_app")  # they run in a trusted application, and are tested there
MODULES = sorted(
    ".".join(path.relative_to(folder if folder.parent.name == "modules" else ROOT).with_suffix("").parts)
    for folder in (ROOT / name for name in FOLDERS)
    for path in folder.rglob("*.py")
    if not set(path.parts) & set(OTHER_PROGRAMS) and ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name.removesuffix(".__init__"))
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed
