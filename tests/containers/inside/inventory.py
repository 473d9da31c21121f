"""Runs inside an image: what lies in it, as one JSON object. `python3 inventory.py MODULE`"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement

TOOLS = ("pip", "pip3", "easy_install", "gcc", "cc", "clang", "make", "git", "curl", "wget", "pytest", "edgeclave")
MODULES = (
    "pip",
    "ensurepip",
    "setuptools",
    "wheel",
    "pytest",
    "typer",
    "rich",
    "docker",
    "uamqp",
    "azure.iot.hub",
    "debugpy",
)
UNCHECKED = b"\1\0\0\0"
SITE = Path(sys.prefix) / "lib" / "python3.11" / "site-packages"


def missing_requirements() -> list[str]:
    """What an installed package asks for and does not find here."""
    installed = {one.metadata["Name"].lower().replace("_", "-"): one.version for one in distributions()}
    wanted = [Requirement(text) for one in distributions() for text in one.requires or []]
    applicable = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [
        str(one)
        for one in applicable
        if not (version := installed.get(one.name.lower().replace("_", "-"))) or not one.specifier.contains(version)
    ]


def without_bytecode() -> list[str]:
    """Source files of ours and of packages whose bytecode is missing or is checked against the source (PEP 552)."""
    found = []
    for source in [*Path("/app").rglob("*.py"), *SITE.rglob("*.py")]:
        compiled = Path(importlib.util.cache_from_source(str(source)))
        if not compiled.exists() or compiled.read_bytes()[4:8] != UNCHECKED:
            found.append(str(source))
    return found


def imported_without_bytecode(module: str) -> list[str]:
    """The same of all that a module imports, the standard library included."""
    before = set(sys.modules)
    sys.path.insert(0, f"/app/modules/{module}")
    importlib.import_module(f"{module}.module")
    importlib.import_module("edgeclave.edge.health")
    imported = [sys.modules[name] for name in set(sys.modules) - before]
    cached = [one.__cached__ for one in imported if getattr(one, "__cached__", None)]
    return [path for path in cached if not Path(path).exists()]


def processor_seconds(module: str, *options: str) -> float:
    """What it costs to import what a module imports; the better of two."""

    def once() -> float:
        program = f"import sys; sys.path.insert(0, '/app/modules/{module}'); import {module}.module"
        before = os.times()
        subprocess.run([sys.executable, *options, "-c", program], check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    return min(once() for _ in range(2))


def importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def main() -> None:
    module = sys.argv[1]
    runtime = Path("/app/edgeclave/evidence/runtime.py").exists()
    if runtime:
        from edgeclave.evidence.runtime import runtime_digest
    said = {
        "packages": {one.metadata["Name"]: one.version for one in distributions()},
        "missing": missing_requirements(),
        "without bytecode": without_bytecode(),
        "tools": [name for name in TOOLS if shutil.which(name)],
        "modules": [name for name in MODULES if importable(name)],
        "imported without bytecode": imported_without_bytecode(module),
        "seconds": processor_seconds(module),
        "seconds without bytecode": processor_seconds(module, "-X", "pycache_prefix=/nowhere"),
        "runtime": runtime_digest().hex() if runtime else None,
        "writable": [path for path in ("/app", "/opt/venv", "/usr", "/etc") if os.access(path, os.W_OK)],
        "files": sorted(
            str(path) for path in Path("/app").rglob("*") if path.suffix not in (".py", ".pyc") and path.is_file()
        ),
        "bill": json.loads(Path(f"/usr/share/sbom/{module}.cdx.json").read_text()),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
