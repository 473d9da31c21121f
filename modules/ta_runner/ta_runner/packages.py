"""Packages by digest: fetched once, checked, kept, and used from the cache when the source is away.

The digest is that of the OCI manifest, which covers the whole file. Signature and signer are checked here to refuse
early with a clear reason; the enclave, which trusts nothing from here, checks everything again.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import urllib.parse
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import aiohttp

from edgeclave.edge.twins.trusted_apps import TrustedAppSettings
from edgeclave.errors import EdgeclaveError, PackageError
from edgeclave.ta.identity import Identity
from edgeclave.ta.manifest import Manifest
from edgeclave.ta.package import DEFAULT_LIMITS, read_package
from edgeclave.ta.signature import verify_package

FETCH_TIMEOUT_SECONDS = 600
CONNECT_TIMEOUT_SECONDS = 20
MAX_REDIRECTS = 5
_CHUNK_BYTES = 1 << 20


class FetchError(EdgeclaveError):
    """The package's source does not give it now; trying again later may help."""


@dataclass(frozen=True)
class CachedPackage:
    """A package file in the cache, and what its verified signature says about it."""

    path: Path
    identity: Identity
    manifest: Manifest


class PackageCache:
    """A folder of packages named by digest."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._verified: dict[str, CachedPackage] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in directory.glob("*.part"):
            leftover.unlink(missing_ok=True)

    def cached(self, digest: str) -> bool:
        """Whether a package with this digest was fetched before."""
        return self._path(digest).is_file()

    async def get(self, settings: TrustedAppSettings) -> CachedPackage:
        """The package from the cache, or fetched into it; its digest, signature and signer are checked.

        Raises:
            FetchError: `package-unavailable`.
            PackageError: `wrong-digest`, `wrong-signer`, `insecure-package-url`, `bad-package-reference`, or what
                reading and verifying the package raises.
        """
        async with self._turns[settings.digest]:  # two applications may ask for the same package
            package = await self._cached_or_fetched(settings)
        signer = package.identity.signer_id.hex()
        if signer != settings.signer:
            raise PackageError(
                "wrong-signer",
                f"the package is signed by {signer}, the twin asks for {settings.signer}",
                where=settings.package,
                advice="deploy the package of the expected signer, or correct `signer` if the change is intended",
            )
        return package

    async def _cached_or_fetched(self, settings: TrustedAppSettings) -> CachedPackage:
        path = self._path(settings.digest)
        package = self._verified.get(settings.digest) if path.is_file() else None
        if package is None and path.is_file():
            try:
                package = await asyncio.to_thread(_verify, path, settings.digest)
            except PackageError:
                path.unlink(missing_ok=True)  # damaged in the cache: its source decides
        if package is None:
            package = await self._fetch(settings, path)
        self._verified[settings.digest] = package
        return package

    def keep_only(self, digests: Iterable[str]) -> None:
        """Removes packages that nothing can go back to any more."""
        keep = {self._path(digest).name for digest in digests}
        for path in self._directory.glob("*.ta"):
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._directory / f"{digest.removeprefix('sha256:')}.ta"

    async def _fetch(self, settings: TrustedAppSettings, path: Path) -> CachedPackage:
        part = path.with_suffix(".part")
        try:
            await _copy(settings.package, part)
            package = await asyncio.to_thread(_verify, part, settings.digest)
            await asyncio.to_thread(_to_disk, part)
            part.replace(path)
        except OSError as error:
            raise FetchError(
                "package-unavailable", f"the package cannot be stored: {error.strerror}", where=str(path.parent)
            ) from error
        finally:
            part.unlink(missing_ok=True)
        return CachedPackage(path, package.identity, package.manifest)


async def _copy(reference: str, target: Path) -> None:
    parts = urllib.parse.urlsplit(reference)
    match parts.scheme:
        case "https":
            await _download(reference, target)
        case "http":
            raise PackageError(
                "insecure-package-url", "packages are fetched over https only", where=reference, advice="use https"
            )
        case "file" if parts.netloc in ("", "localhost"):
            await asyncio.to_thread(_copy_file, Path(urllib.parse.unquote(parts.path)), target)
        case "" if not parts.netloc:
            await asyncio.to_thread(_copy_file, Path(reference), target)
        case _:
            raise PackageError(
                "bad-package-reference",
                "this is no path, file:// or https:// reference",
                where=reference[:200],
                advice="give the package as one of these",
            )


def _copy_file(source: Path, target: Path) -> None:
    try:
        with source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            _check_size(size, str(source))
            with _new_file(target) as copy:
                shutil.copyfileobj(file, copy, _CHUNK_BYTES)
    except OSError as error:
        raise FetchError(
            "package-unavailable",
            f"the package cannot be read: {error.strerror}",
            where=str(source),
            advice="check the path as this module sees it, and its permissions",
        ) from error


async def _download(url: str, target: Path) -> None:
    timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.get(url, max_redirects=MAX_REDIRECTS, ssl=ssl.create_default_context()) as response,
        ):
            if response.url.scheme != "https":
                raise PackageError(
                    "insecure-package-url", "the package's address leads away from https", where=url, advice="use https"
                )
            if response.status != 200:
                raise FetchError("package-unavailable", f"the server answers {response.status}", where=url)
            size = 0
            with _new_file(target) as copy:
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    size += len(chunk)
                    _check_size(size, url)
                    copy.write(chunk)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise FetchError(
            "package-unavailable",
            f"the package cannot be fetched: {str(error)[:200] or type(error).__name__}",
            where=url,
            advice="check the address and the device's network; it is tried again",
        ) from error


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


def _check_size(size: int, where: str) -> None:
    if size > DEFAULT_LIMITS.package:
        raise PackageError("package-too-large", f"the package is over {DEFAULT_LIMITS.package} bytes", where=where)


def _new_file(path: Path) -> BinaryIO:
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
