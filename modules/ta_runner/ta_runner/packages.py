"""Packages by digest: fetched once, checked at each use, and used from the cache when the source is away.

The digest is that of the OCI manifest, which covers the whole file. Signature and signer are checked here to refuse
early with a clear reason; the enclave, which trusts nothing from here, checks everything again.

In the folder lie `HEX.ta`, the packages, and `HEX.partial/`, what has come so far of one. It is bounded by what is
kept: of each trusted application one package that the twin asks for and one that ran before.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog

from edgeclave.edge.twins.trusted_apps import TrustedAppSettings
from edgeclave.errors import PackageError
from edgeclave.ta.identity import Identity
from edgeclave.ta.manifest import Manifest
from edgeclave.ta.package import read_package
from edgeclave.ta.signature import verify_package
from ta_runner.sources import FetchError, cannot_be_stored, fetch, registry_folder, remote_host

__all__ = ["CachedPackage", "FetchError", "PackageCache"]

FETCHES_AT_ONCE = 2
"""From one host, so that a slow one holds up only what comes from there."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class CachedPackage:
    """A package file in the cache, and what its verified signature says about it."""

    path: Path
    identity: Identity
    manifest: Manifest


class PackageCache:
    """A folder of packages named by digest. `registry`: see `ta_runner.sources`."""

    def __init__(self, directory: Path, registry: Path | None = None) -> None:
        self._directory = directory
        self._registry = registry or registry_folder()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._hosts: defaultdict[str | None, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(FETCHES_AT_ONCE)
        )
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in (*directory.glob("*.part"), *directory.glob(".*.new")):
            leftover.unlink(missing_ok=True)

    def cached(self, digest: str) -> bool:
        """Whether a package with this digest was fetched before."""
        return self._path(digest).is_file()

    async def get(self, settings: TrustedAppSettings) -> CachedPackage:
        """The package from the cache, or fetched into it; its digest, signature and signer are checked.

        Cancel it when the package is not wanted any more: what came from a registry is kept for the next time.

        Raises:
            FetchError: `package-unavailable`, `disk-full`, or what a registry did.
            PackageError: `wrong-digest`, `wrong-signer`, `insecure-package-url`, `bad-package-reference`, or what
                reading and verifying the package raises.
        """
        async with self._turns[settings.digest]:  # two applications may ask for the same package
            package = await self._cached(settings) or await self._fetch(settings)
        signer = package.identity.signer_id.hex()
        if signer != settings.signer:
            raise PackageError(
                "wrong-signer",
                f"the package is signed by {signer}, the twin asks for {settings.signer}",
                where=settings.package,
                advice="deploy the package of the expected signer, or correct `signer` if the change is intended",
            )
        return package

    def keep_only(self, digests: Iterable[str]) -> None:
        """Removes packages, and parts of them, that nothing can go back to any more."""
        keep = {self._path(digest).stem for digest in digests}
        for path in self._directory.glob("*.ta"):
            if path.stem not in keep:
                path.unlink(missing_ok=True)
        for path in self._directory.glob("*.partial"):
            if path.stem not in keep:
                shutil.rmtree(path, ignore_errors=True)

    async def _cached(self, settings: TrustedAppSettings) -> CachedPackage | None:
        path = self._path(settings.digest)
        if not path.is_file():
            return None
        try:
            return await asyncio.to_thread(_verify, path, settings.digest)
        except PackageError as error:
            _log.warning(
                "package in the cache is damaged: it is fetched again", digest=settings.digest, code=error.code
            )
            path.unlink(missing_ok=True)
            return None

    async def _fetch(self, settings: TrustedAppSettings) -> CachedPackage:
        path = self._path(settings.digest)
        part = path.with_suffix(".part")
        try:
            async with self._hosts[remote_host(settings.package)]:
                await fetch(settings, part, path.with_suffix(".partial"), self._registry)
            package = await asyncio.to_thread(_verify, part, settings.digest)
            await asyncio.to_thread(_to_disk, part)
            part.replace(path)
        except OSError as error:
            raise cannot_be_stored(error, path.parent) from error
        finally:
            part.unlink(missing_ok=True)
        return CachedPackage(path, package.identity, package.manifest)

    def _path(self, digest: str) -> Path:
        return self._directory / f"{digest.removeprefix('sha256:')}.ta"


def _verify(path: Path, digest: str) -> CachedPackage:
    package = read_package(path)
    if package.digest != digest:
        raise PackageError(
            "wrong-digest",
            f"the package has digest {package.digest}, the twin asks for {digest}",
            where=str(path),
            advice="deploy digest and package of the same build",
        )
    verified = verify_package(package)
    return CachedPackage(path, verified.identity, verified.manifest)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
