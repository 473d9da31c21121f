"""A trusted application's folder, and what is made of it: built and signed again only when something changed.

Below `build/` lie `NAME.wasm` (what `ta build` made), `NAME.stamp` (what it was made of), and `run/` (the development
package and the emulated device that `ta run` and `ta test` use).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from edgeclave.cose import dcbor
from edgeclave.develop.development_keys import make_missing_authorities
from edgeclave.errors import ConfigurationError, EdgeclaveError
from edgeclave.ta.build import WIT_FOLDER, build_wasm, builder_version, c_compiler_version, language_of
from edgeclave.ta.build.output import write_package
from edgeclave.ta.manifest import Manifest
from edgeclave.ta.package import DEFAULT_LIMITS
from edgeclave.ta.signature import sign_package
from edgeclave.ta.signing import signing_key
from edgeclave.ta.source import load_source, read_name, read_regular

DEVELOPMENT_KEY = "developer"
MAX_SOURCES = 10_000
"""Files of one project. More means that the folder is not a project, and hashing them would take long."""
_NOT_SOURCES = ("build", "tests", "__pycache__", ".*", "README.md", "*.wasm", "*.ta", "ta.toml", "pyproject.toml")
_SDK = WIT_FOLDER.parent / "guest"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Project:
    """The folder with `ta.toml`, and the name that stands in it."""

    folder: Path
    name: str

    @classmethod
    def at(cls, folder: Path) -> Project:
        """Raises ConfigurationError `no-manifest`, PackageError `bad-manifest`."""
        return cls(folder, read_name(folder))

    @property
    def wasm(self) -> Path:
        return self.folder / "build" / f"{self.name}.wasm"

    @property
    def package(self) -> Path:
        """Where `ta sign` writes; the development package is another file."""
        return self.folder / "build" / f"{self.name}.ta"

    @property
    def run_folder(self) -> Path:
        return self.folder / "build" / "run"

    def build(self, tell: Tell) -> bool:
        """Builds what changed; False when the Wasm is that of these sources already.

        Raises:
            ConfigurationError: `no-source`, `too-many-sources`, `missing-extra`, `build-not-written`.
            PackageError: what the toolchain says.
        """
        sources = _fingerprint(self.folder)
        stamp = _Stamp(self.wasm)
        if stamp.holds(sources):
            return False
        build_wasm(self.folder, self.wasm, tell)
        stamp.write(sources)
        return True

    def development_package(self, keys: Path, tell: Tell) -> Path:
        """The package to try out: built if it must be, signed with the development key, its missing keys made.

        Raises:
            EdgeclaveError: what building, the manifest or the keys are refused for.
        """
        self.build(tell)
        make_missing_authorities(self.folder, keys, tell)
        manifest = load_source(self.folder, keys)
        key, chain = signing_key(keys, DEVELOPMENT_KEY)
        package = self.run_folder / f"{self.name}.ta"
        signed = hashlib.sha256(dcbor([manifest.to_map(), [one.public_bytes(Encoding.DER) for one in chain]]))
        signed.update(_identity_of(self.wasm).encode())
        stamp = _Stamp(package)
        # A new signature is a new package, and costs the device the code it has compiled of the old one.
        if not stamp.holds(signed.hexdigest()):
            wasm = read_wasm(self.wasm)
            try:
                write_package(package, wasm, sign_package(manifest, wasm, key, chain), package_annotations(manifest))
                stamp.write(signed.hexdigest())
            except OSError as error:
                raise ConfigurationError(
                    "not-written",
                    f"the development package cannot be written: {error.strerror}",
                    where=str(package),
                    advice="see that there is room and permission to write in the project's build folder",
                ) from error
        return package


def package_annotations(manifest: Manifest) -> dict[str, str]:
    """What registries show of a package."""
    return {
        "org.opencontainers.image.title": manifest.name,
        "org.opencontainers.image.version": manifest.version,
    }


def read_wasm(path: Path) -> bytes:
    """Raises ConfigurationError `no-wasm`, `wasm-too-large`."""
    try:
        with path.open("rb") as file:
            wasm = file.read(DEFAULT_LIMITS.wasm + 1)
    except OSError as error:
        raise ConfigurationError(
            "no-wasm",
            f"the component cannot be read: {error.strerror}",
            where=str(path),
            advice="run `edgeclave ta build` first, or name it with --wasm",
        ) from error
    if len(wasm) > DEFAULT_LIMITS.wasm:
        raise ConfigurationError(
            "wasm-too-large",
            f"it is over the limit of {DEFAULT_LIMITS.wasm} bytes",
            where=str(path),
            advice="leave out data and modules that the application does not need",
        )
    return wasm


class _Stamp:
    """Remembers beside a file what it was made of. Without it, or after any doubt, the file is made again."""

    def __init__(self, made: Path) -> None:
        self._made = made
        self._path = made.with_name(f".{made.name}.stamp")

    def holds(self, inputs: str) -> bool:
        try:
            return bool(json.loads(self._path.read_text()) == self._content(inputs))
        except (OSError, ValueError):
            return False

    def write(self, inputs: str) -> None:
        self._path.write_text(json.dumps(self._content(inputs)))

    def _content(self, inputs: str) -> dict[str, Any]:
        return {"inputs": inputs, "made": _identity_of(self._made)}


def _identity_of(path: Path) -> str:
    """Tells one version of a file of ours from the next without reading it."""
    status = path.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def _fingerprint(folder: Path) -> str:
    """SHA-256 over every file that may go into the Wasm, by path and content, and over the tools."""
    digest = hashlib.sha256(_builder(folder).encode())
    files = [*_sources(folder), *((path, path.relative_to(WIT_FOLDER.parent)) for path in _tools())]
    for path, name in files:
        try:
            content = read_regular(path)
        except OSError as error:
            raise ConfigurationError(
                "source-unreadable", f"a source file cannot be read: {error.strerror}", where=str(path)
            ) from error
        digest.update(f"{name}\0{len(content)}\0".encode(errors="surrogateescape") + content)
    return digest.hexdigest()


def _builder(folder: Path) -> str:
    try:
        return builder_version() if language_of(folder) == "python" else c_compiler_version()
    except EdgeclaveError:
        return ""  # building says what is missing, if there is something to build


def _tools() -> list[Path]:
    return sorted(path for folder in (WIT_FOLDER, _SDK) for path in folder.rglob("*") if _is_source(path))


def _is_source(path: Path) -> bool:
    return path.is_file() and path.suffix != ".pyc"


def _sources(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Each source and its name in the project, sorted."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not _left_out(name)]
        found += [Path(parent, name) for name in names if not _left_out(name)]
        if len(found) > MAX_SOURCES:
            raise ConfigurationError(
                "too-many-sources",
                f"there are more than {MAX_SOURCES} files",
                where=str(folder),
                advice="name the folder of one trusted application",
            )
    return ((path, path.relative_to(folder)) for path in sorted(found))


def _left_out(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _NOT_SOURCES)
