"""Pulling: the OCI manifest, then its parts, each checked; then the package file is put together from them.

A pull that was interrupted goes on where it was: each part is kept as it arrives, under its digest, in a folder that
the caller gives, and checked as a whole once it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import aiohttp
import msgspec

from edgeclave.errors import PackageError
from edgeclave.registry import answers
from edgeclave.registry.connection import Connection, RegistryAccess
from edgeclave.registry.errors import RegistryError, bad_answer
from edgeclave.registry.patience import Patience
from edgeclave.registry.progress import Progress, Tell
from edgeclave.registry.reference import Reference
from edgeclave.ta.package import (
    ARTIFACT_TYPE,
    DEFAULT_LIMITS,
    OCI_INDEX_TYPE,
    OCI_MANIFEST_TYPE,
    Descriptor,
    OciManifest,
    package_pieces,
    parse_oci_manifest,
)

_DOCKER_TYPES = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
# The others are asked for so that a registry says what it has in place of a package.
_ACCEPT = ", ".join((OCI_MANIFEST_TYPE, OCI_INDEX_TYPE, *_DOCKER_TYPES))
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)\Z")
_CHUNK_BYTES = 256 << 10


async def pull_package(
    reference: Reference, target: Path, partial: Path, access: RegistryAccess, tell: Tell = lambda _: None
) -> str:
    """Writes the package file and returns its digest. Signature and signer are not looked at.

    Args:
        reference: by digest, or else by tag (`latest` if there is none).
        target: written whole or not at all, mode 0600; replaced if it is there.
        partial: a folder for the parts; removed at the end, kept for the next time when interrupted.

    Raises:
        RegistryError: see the package's documentation; `disk-full`, `not-stored` for this side.
    """
    limits = access.limits
    try:
        async with asyncio.timeout(limits.total_seconds), Connection(reference, access, "pull") as connection:
            digest, manifest = await _manifest(connection)
            wasm, signature = manifest.layers
            with _storing(partial):
                _make_folder(partial)
                _check_space(manifest, partial, limits.reserve_bytes)
                for what, part in (("signature", signature), ("code", wasm)):
                    await _download(connection, part, partial, Progress(tell, f"pulling the {what}", part.size))
                await asyncio.to_thread(_assemble, manifest, digest, partial, target)
                shutil.rmtree(partial, ignore_errors=True)
    except TimeoutError as error:
        raise answers.too_slow(str(reference)) from error
    return digest


async def _manifest(connection: Connection) -> tuple[str, OciManifest]:
    reference = connection.reference
    wanted = reference.digest or reference.tag or "latest"
    answer = await connection.call(
        "GET", connection.url(f"manifests/{wanted}"), headers={"Accept": _ACCEPT}, most=DEFAULT_LIMITS.oci_manifest
    )
    digest = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
    if reference.digest is None and answers.is_page(answer.headers):
        raise bad_answer("it answers with a web page", str(reference))
    claimed = reference.digest or answer.headers.get("Docker-Content-Digest") or digest
    if digest != claimed:
        raise wrong_digest("manifest", claimed, str(reference))
    return digest, read_manifest(answer.body, str(reference))


def read_manifest(data: bytes, where: str) -> OciManifest:
    """The manifest of a package, with its sizes within the limits. Raises RegistryError `not-a-trusted-app`."""
    try:
        manifest = parse_oci_manifest(data)
    except PackageError as error:
        raise RegistryError(
            "not-a-trusted-app",
            f"this is no trusted application, but {_kind(data)}: {error.what}"[:400],
            where=where,
            advice="give the reference that `edgeclave ta push` printed",
        ) from error
    wasm, signature = manifest.layers
    for part, most in ((wasm, DEFAULT_LIMITS.wasm), (signature, DEFAULT_LIMITS.signature)):
        if not 0 < part.size <= most:
            raise RegistryError(
                "not-a-trusted-app",
                f"a part has {part.size} bytes, and 1 to {most} are possible",
                where=where,
                advice="a trusted application like this runs nowhere: push another one",
            )
    return manifest


def wrong_digest(what: str, digest: str, where: str) -> RegistryError:
    """The registry does not give what the digest names."""
    return RegistryError(
        "registry-wrong-digest",
        f"the registry gives another {what} than {digest}",
        where=where,
        advice="the registry, or something on the way to it, alters content or is damaged: do not use it; push again",
    )


def _kind(data: bytes) -> str:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "no manifest at all"
    if not isinstance(found, dict):
        return "no manifest at all"
    if found.get("mediaType") in (OCI_INDEX_TYPE, _DOCKER_TYPES[1]):
        return "an index of images"
    kind = found.get("artifactType")
    if kind == ARTIFACT_TYPE:
        return "something that calls itself one"
    return f"an artifact of type {kind[:100]!r}" if isinstance(kind, str) else "an image"


async def _download(connection: Connection, part: Descriptor, folder: Path, progress: Progress) -> None:
    path = folder / part.digest.removeprefix("sha256:")
    patience = Patience(connection.limits)
    resumed = path.exists()
    while True:
        have = _size(path)
        try:
            if have < part.size:
                await _append(connection, part, path, progress)
        except RegistryError as error:
            if _size(path) > have:
                patience.progress()
            await patience.rest(error)
            continue
        if _size(path) == part.size and await asyncio.to_thread(_hash, path) == part.digest:
            return
        _remove(path)
        if not resumed:
            raise wrong_digest("part", part.digest, str(connection.reference))
        resumed = False  # what was kept may be damaged: once more from the beginning


async def _append(connection: Connection, part: Descriptor, path: Path, progress: Progress) -> None:
    """Receives what is missing, or all of it where the registry knows no ranges."""
    have = _size(path)
    headers = {"Range": f"bytes={have}-"} if have else {}
    url = connection.url(f"blobs/{part.digest}")
    async with connection.open("GET", url, headers) as response:
        if response.status not in (200, 206):
            if response.status == 416:
                _remove(path)
            body = await connection.body(response)
            raise answers.unexpected(response.status, response.headers, body, connection.reference)
        if response.status == 200 or not have:
            have = 0
        elif not _continues(response, have, part.size):
            _remove(path)
            raise bad_answer("it answers with another range than was asked for", str(connection.reference))
        if response.content_length not in (None, part.size - have):
            raise _wrong_size(connection.reference, part)
        with _open(path, append=have > 0) as file:
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                have += len(chunk)
                if have > part.size:
                    raise _wrong_size(connection.reference, part)
                file.write(chunk)
                progress.at(have)
    if have < part.size:
        error = _wrong_size(connection.reference, part)
        error.again = True
        raise error


def _continues(response: aiohttp.ClientResponse, have: int, size: int) -> bool:
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) == have and int(found[2]) < size and found[3] in ("*", str(size))


def _wrong_size(reference: Reference, part: Descriptor) -> RegistryError:
    return RegistryError(
        "registry-wrong-size",
        f"the registry gives more or less than the {part.size} bytes of {part.digest}",
        where=str(reference),
        advice="the registry, or something on the way to it, is damaged; push the package again",
    )


def _assemble(manifest: OciManifest, digest: str, partial: Path, target: Path) -> None:
    wasm, signature = (partial / part.digest.removeprefix("sha256:") for part in manifest.layers)
    with (
        wasm.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as code,
        memoryview(code) as view,
    ):
        pieces, made = package_pieces(view, signature.read_bytes(), manifest.annotations)
        if made != digest:  # a part was changed on the disk since it was checked
            raise wrong_digest("part", digest, str(target))
        _write(pieces, target)


def _write(pieces: Iterable[bytes | memoryview], target: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", suffix=".new", delete=False) as file:
        try:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(target)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _check_space(manifest: OciManifest, folder: Path, reserve: int) -> None:
    """The parts and then the package of them must fit, so that a pull does not fill the disk of others."""
    size = sum(part.size for part in manifest.layers)
    have = sum(_size(folder / part.digest.removeprefix("sha256:")) for part in manifest.layers)
    free, needed = shutil.disk_usage(folder).free, 2 * size - have + reserve
    if free < needed:
        raise RegistryError(
            "disk-full",
            f"the package needs {needed:,} bytes of disk, {free:,} are free",
            where=str(folder.parent),
            advice="free space there; it is tried again",
        )


@contextlib.contextmanager
def _storing(partial: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full:
            shutil.rmtree(partial, ignore_errors=True)  # others need the space more
        raise RegistryError(
            "disk-full" if full else "not-stored",
            f"the package cannot be stored: {error.strerror or error}",
            where=str(partial.parent),
            advice="free space there" if full else "see that this user may write there",
        ) from error


def _open(path: Path, *, append: bool) -> BinaryIO:
    flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | (os.O_APPEND if append else os.O_TRUNC)
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _make_folder(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
