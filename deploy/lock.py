"""Renews what the images install: exact versions with the hashes of all their files, and a software bill of materials.

    make lock

Reads each `requirements.in` and writes, beside it, `requirements.txt` (for pip's --require-hashes; good for every
architecture, since an index's hashes are of all files of a release) and `sbom.cdx.json` (CycloneDX 1.6, made from what
that list installs, so with licenses and dependencies). Versions stay within pyproject.toml's bounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = "3.11"
"""Of the base image."""
BUILD = ROOT / "deploy" / "build"
"""Is used while an image is built, and is in none."""
DEBUG = ROOT / "deploy" / "debug"
WITHOUT_WHEEL = "paho-mqtt"
UV = [sys.executable, "-m", "uv", "--quiet"]


def main() -> None:
    """Renews all of them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    bounds = [
        line for line in [*project["dependencies"], *extras["module"], *extras["dev"]] if "edgeclave[" not in line
    ]
    with tempfile.TemporaryDirectory() as scratch:
        constraints = Path(scratch) / "constraints.txt"
        constraints.write_text("\n".join(bounds))
        for wanted in sorted([*ROOT.glob("modules/*/requirements.in"), *ROOT.glob("deploy/*/requirements.in")]):
            print(f"{wanted.relative_to(ROOT)} ...", flush=True)
            locked = wanted.with_suffix(".txt")
            _lock(wanted, constraints, locked)
            if wanted.parent != BUILD:
                bill = _bill(wanted, locked, project, Path(scratch))
                wanted.with_name("sbom.cdx.json").write_text(json.dumps(bill, indent=1) + "\n")


def _lock(wanted: Path, constraints: Path, locked: Path) -> None:
    """Only wheels, so that nothing is built, and no code of a package runs, where an image is made."""
    command = [
        *UV, "pip", "compile", "--python-version", PYTHON, "--constraint", str(constraints), "--generate-hashes",
        "--only-binary", ":all:", "--no-binary", WITHOUT_WHEEL, "--no-header", "--no-annotate", "--upgrade",
        str(wanted),
    ]  # fmt: skip
    compiled = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    locked.write_text(f"# Made by `make lock` from {wanted.name}; do not edit.\n{compiled}")


def _bill(wanted: Path, locked: Path, project: dict[str, str], scratch: Path) -> dict[str, object]:
    name = "debugpy" if wanted.parent == DEBUG else wanted.parent.name
    environment = scratch / name
    subprocess.run([*UV, "venv", "--python", sys.executable, str(environment)], check=True)
    python = str(environment / "bin" / "python")
    subprocess.run([*UV, "pip", "install", "--python", python, "--require-hashes", "-r", str(locked)], check=True)
    described = scratch / f"{name}.toml"
    direct = [line for line in wanted.read_text().splitlines() if not line.startswith("#")]
    described.write_text(
        f'[project]\nname = "edgeclave-{name}"\nversion = "{project["version"]}"\nlicense = "{project["license"]}"\n'
        f"dependencies = {direct}\n"
    )
    command = [
        sys.executable, "-m", "cyclonedx_py", "environment", "--spec-version", "1.6", "--output-reproducible",
        "--mc-type", "application", "--pyproject", str(described), python,
    ]  # fmt: skip
    bill = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    for component in bill["components"]:
        component.pop("externalReferences", None)  # addresses of web sites: they change, and say nothing of the image
    del bill["metadata"]["tools"]
    return dict(sorted(bill.items(), reverse=True))


if __name__ == "__main__":
    main()
