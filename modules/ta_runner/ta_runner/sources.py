"""Where packages come from: a registry, an https:// address, or a file that this module sees.

What a registry needs to let the runner in lies in the registry folder, which is mounted into the container, and never
in a twin: `config.json`, as `docker login` writes it, and `ca.pem`, authorities that are trusted besides those of the
system. Both may be missing. They are read at each fetch, so that they can be renewed in place.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import ssl
import urllib.parse
from pathlib import Path
from typing import BinaryIO

import aiohttp

from edgeclave.edge.twins.trusted_apps import TrustedAppSettings
from edgeclave.errors import EdgeclaveError, PackageError
from edgeclave.registry import (
    Reference,
    RegistryAccess,
    RegistryError,
    RegistryLimits,
    pull_package,
    read_credentials,
)
from edgeclave.ta.package import DEFAULT_LIMITS

DEFAULT_REGISTRY_FOLDER = "/etc/edgeclave/registry"
REGISTRY_FOLDER_VARIABLE = "EDGECLAVE_REGISTRY"
AUTHORITY_FILE = "ca.pem"
FETCH_TIMEOUT_SECONDS = 600
"""Then others get their turn; what has come from a registry is kept for the next time."""
CONNECT_TIMEOUT_SECONDS = 20
MAX_REDIRECTS = 5
_CHUNK_BYTES = 1 << 20
_PERMANENT = {"bad-registry-reference", "not-a-trusted-app"}
"""What no waiting changes. All else, a wrong password too, may be set right without a new twin."""


class FetchError(EdgeclaveError):
    """The package's source does not give it now; trying again later may help. `retry_after`: seconds, if it said so."""

    def __init__(
        self, code: str, what: str, *, where: str = "", advice: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(code, what, where=where, advice=advice)
        self.retry_after = retry_after


def registry_folder() -> Path:
    """The folder that EDGECLAVE_REGISTRY names, or /etc/edgeclave/registry."""
    return Path(os.environ.get(REGISTRY_FOLDER_VARIABLE) or DEFAULT_REGISTRY_FOLDER)


def remote_host(package: str) -> str | None:
    """The host that a package is fetched from over the network; None for a file."""
    parts = urllib.parse.urlsplit(package)
    if parts.scheme == "https":
        return parts.netloc
    return package.partition("/")[0] if _is_registry_reference(package) else None


async def fetch(settings: TrustedAppSettings, target: Path, partial: Path, registry: Path) -> None:
    """Copies a package to `target`. Its digest is checked by the caller too.

    Raises:
        FetchError: `package-unavailable`, or the RegistryError's code.
        PackageError: `insecure-package-url`, `bad-package-reference`, `package-too-large`, or the RegistryError's code.
    """
    reference = settings.package
    parts = urllib.parse.urlsplit(reference)
    if _is_registry_reference(reference):
        await _pull(settings, target, partial, registry)
        return
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
                "this is no reference into a registry, path, file:// or https:// reference",
                where=reference[:200],
                advice="give the package as one of these",
            )


def cannot_be_stored(error: OSError, folder: Path) -> FetchError:
    """The error of a disk that does not take a package."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return FetchError(
        "disk-full" if full else "package-unavailable",
        f"the package cannot be stored: {error.strerror}",
        where=str(folder),
        advice="free space on the device's disk; it is tried again" if full else "check the module's state folder",
    )


def new_file(path: Path) -> BinaryIO:
    """A file that was not there, readable by its owner only."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")


def _is_registry_reference(package: str) -> bool:
    return "://" not in package and not package.startswith(("/", ".", "file:"))


async def _pull(settings: TrustedAppSettings, target: Path, partial: Path, registry: Path) -> None:
    """By the digest that the twin names, whatever the tag says."""
    try:
        reference = Reference.parse(settings.package)
        if reference.digest not in (None, settings.digest):
            raise PackageError(
                "bad-package-reference",
                f"the reference names {reference.digest}, and `digest` names {settings.digest}",
                where=settings.package,
                advice="take both from one `edgeclave ta push`",
            )
        credentials = await asyncio.to_thread(read_credentials, reference.host, registry)
        authority = registry / AUTHORITY_FILE
        access = RegistryAccess(
            credentials,
            authority if authority.exists() else None,
            limits=RegistryLimits(total_seconds=FETCH_TIMEOUT_SECONDS),
        )
        await pull_package(reference.at(settings.digest), target, partial, access)
    except RegistryError as error:
        if error.code in _PERMANENT:
            raise PackageError(error.code, error.what, where=error.where, advice=error.advice) from error
        raise FetchError(
            error.code, error.what, where=error.where, advice=error.advice, retry_after=error.retry_after
        ) from error


def _copy_file(source: Path, target: Path) -> None:
    try:
        file = source.open("rb")
    except OSError as error:
        raise _unreadable(source, error) from error
    with file:
        _check_size(os.fstat(file.fileno()).st_size, str(source))
        with new_file(target) as copy:
            shutil.copyfileobj(file, copy, _CHUNK_BYTES)


def _unreadable(source: Path, error: OSError) -> FetchError:
    return FetchError(
        "package-unavailable",
        f"the package cannot be read: {error.strerror}",
        where=str(source),
        advice="check path and permissions as this module sees them, or bring it to a registry: `edgeclave ta push`",
    )


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
            with new_file(target) as copy:
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


def _check_size(size: int, where: str) -> None:
    if size > DEFAULT_LIMITS.package:
        raise PackageError("package-too-large", f"the package is over {DEFAULT_LIMITS.package} bytes", where=where)
