"""The runtime reference value of the emulator: a digest of the code that runs inside the enclave process.

The same on every machine with the same release, so a reader computes it from its own installation (`this-release`).

Measured is what the process loads, file by file, and nothing else: a release that changes only verifiers, services or
tools leaves it as it was. A test derives the list from the imports of `edgeclave.enclave`, and the enclave compares it
with what it has loaded before it runs a trusted application.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path

from edgeclave import cose
from edgeclave.errors import EnclaveError

_ROOT = Path(__file__).parent.parent
_FOLDERS = ("enclave", "ta/wit")
_FILES = (
    "__init__.py",
    "cose.py",
    "errors.py",
    "evidence/__init__.py",
    "evidence/anchors.py",
    "evidence/collection.py",
    "evidence/eat.py",
    "evidence/emulator.py",
    "evidence/endorsements.py",
    "evidence/runtime.py",
    "evidence/tee.py",
    "results/__init__.py",
    "results/beacon.py",
    "results/encryption.py",
    "results/instance.py",
    "results/recipients.py",
    "results/records.py",
    "results/sealed.py",
    "ta/__init__.py",
    "ta/binary.py",
    "ta/core_module.py",
    "ta/identity.py",
    "ta/manifest.py",
    "ta/package.py",
    "ta/signature.py",
    "ta/world.py",
    "ta/wrapping.py",
    "wire.py",
)
_SUFFIXES = (".py", ".wit")


@lru_cache(maxsize=1)
def runtime_digest() -> bytes:
    """SHA-256 over dCBOR of the sorted list of [path in the release, SHA-256 of the file]; 32 bytes."""
    return cose.sha256(cose.dcbor([[path, cose.sha256((_ROOT / path).read_bytes())] for path in runtime_files()]))


@lru_cache(maxsize=1)
def runtime_files() -> tuple[str, ...]:
    """The files that are measured, as paths from the package folder, sorted."""
    found = [path for folder in _FOLDERS for path in (_ROOT / folder).rglob("*") if path.suffix in _SUFFIXES]
    return tuple(sorted([*_FILES, *(path.relative_to(_ROOT).as_posix() for path in found)]))


def require_measured() -> None:
    """Every file of ours that this process has loaded is one that is measured.

    Raises:
        EnclaveError: `unmeasured-code`.
    """
    measured = {str(_ROOT / path) for path in runtime_files()}
    loaded = {
        module.__spec__.origin
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == __name__.partition(".")[0] and module.__spec__ and module.__spec__.origin
    }
    if others := loaded - measured:
        raise EnclaveError(
            "unmeasured-code",
            "the enclave has loaded code that its evidence would not cover",
            where=", ".join(sorted(os.path.relpath(path, _ROOT) for path in others)),
            advice="install the release again; where the enclave was changed, name the file in evidence/runtime.py",
        )
