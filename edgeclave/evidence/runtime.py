"""The runtime reference value of the emulator: a digest of the code that runs inside the enclave process.

The same on every machine with the same release, so a reader computes it from its own installation (`this-release`).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from edgeclave import cose

_ROOT = Path(__file__).parent.parent
_FILES = ("__init__.py", "cose.py", "errors.py", "wire.py")
_FOLDERS = ("channel", "enclave", "evidence", "results", "ta")
_GUEST = _ROOT / "ta" / "guest"  # runs inside the trusted application, which has an identity of its own
_SUFFIXES = (".py", ".wit")


@lru_cache(maxsize=1)
def runtime_digest() -> bytes:
    """SHA-256 over dCBOR of the sorted list of [path in the release, SHA-256 of the file]; 32 bytes."""
    return cose.sha256(cose.dcbor([[path, cose.sha256((_ROOT / path).read_bytes())] for path in runtime_files()]))


def runtime_files() -> list[str]:
    """The files that are measured, as paths from the package folder, sorted."""
    found = [_ROOT / name for name in _FILES]
    for folder in _FOLDERS:
        found += [path for path in (_ROOT / folder).rglob("*") if path.suffix in _SUFFIXES and not _is_guest(path)]
    return sorted(path.relative_to(_ROOT).as_posix() for path in found)


def _is_guest(path: Path) -> bool:
    return path.is_relative_to(_GUEST)
