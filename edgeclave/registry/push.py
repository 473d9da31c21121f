"""Pushing: the parts that the registry does not have, then the OCI manifest, then a look whether it gives that back.

A large part goes in chunks. After a broken connection the registry is asked how far it got, and the rest is sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass

from yarl import URL

from edgeclave.registry import answers
from edgeclave.registry.connection import Answer, Connection, RegistryAccess
from edgeclave.registry.errors import RegistryError, bad_answer
from edgeclave.registry.patience import Patience
from edgeclave.registry.progress import Progress, Tell
from edgeclave.registry.pull import wrong_digest
from edgeclave.registry.reference import Reference
from edgeclave.ta.package import (
    DEFAULT_LIMITS,
    EMPTY_CONFIG,
    OCI_MANIFEST_TYPE,
    Package,
    encode_oci_manifest,
)

Data = bytes | memoryview
MAX_SESSIONS = 3
"""Uploads begun anew, of one part: each time the registry has lost the one before."""
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,15})\Z")
_ANSWERS_TO_A_CHUNK = (202, 400, 404, 405, 411, 416, 501)
"""Taken; or of a registry that lost the upload, wants another range, or takes no chunks."""
_BINARY = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Pushed:
    """`reference` has tag and digest; sizes are bytes of parts, those sent and those that were there."""

    reference: Reference
    sent: int
    present: int


class _SessionLostError(Exception):
    """The registry does not know the upload any more, or not what it has of it."""

    def __init__(self, reason: RegistryError | None = None) -> None:
        super().__init__()
        self.reason = reason


async def push_package(
    package: Package, reference: Reference, access: RegistryAccess, tell: Tell = lambda _: None
) -> Pushed:
    """Pushes a package under a tag, or by its digest alone where the reference has no tag.

    Raises:
        RegistryError: see the package's documentation.
    """
    wasm = bytes(package.wasm)
    manifest = encode_oci_manifest(wasm, package.signature, package.annotations)
    if reference.digest not in (None, package.digest):
        raise RegistryError(
            "bad-registry-reference",
            f"the reference names another digest than the package's: {package.digest}",
            where=str(reference),
            advice="leave the digest out: it is that of the package",
        )
    pushed = reference.at(package.digest)
    sent = present = 0
    try:
        async with asyncio.timeout(access.limits.total_seconds), Connection(pushed, access, "pull,push") as connection:
            parts = (("config", EMPTY_CONFIG), ("signature", package.signature), ("code", wasm))
            for what, data in parts:
                if await _is_there(connection, data):
                    present += len(data)
                else:
                    await _upload(connection, data, Progress(tell, f"pushing the {what}", len(data)))
                    sent += len(data)
            await _put_manifest(connection, pushed, manifest)
    except TimeoutError as error:
        raise answers.too_slow(str(reference)) from error
    return Pushed(pushed, sent, present)


async def _put_manifest(connection: Connection, pushed: Reference, manifest: bytes) -> None:
    place = pushed.tag or pushed.digest or ""
    try:
        await connection.call(
            "PUT",
            connection.url(f"manifests/{place}"),
            headers={"Content-Type": OCI_MANIFEST_TYPE},
            data=manifest,
            expect=(201,),
        )
    except RegistryError as error:
        if error.code == "registry-bad-answer":
            error.advice = "if this registry takes images and no OCI artifacts, use one that does (OCI 1.1)"
        raise
    for name in filter(None, (pushed.tag, pushed.digest)):
        answer = await connection.call(
            "GET",
            connection.url(f"manifests/{name}"),
            headers={"Accept": OCI_MANIFEST_TYPE},
            most=DEFAULT_LIMITS.oci_manifest,
        )
        if answer.body != manifest:
            raise wrong_digest("manifest", name, str(pushed))


async def _is_there(connection: Connection, data: Data) -> bool:
    answer = await connection.call("HEAD", connection.url(f"blobs/{_digest(data)}"), expect=(200, 404))
    return answer.status == 200 and answer.headers.get("Content-Length", str(len(data))) == str(len(data))


async def _upload(connection: Connection, data: Data, progress: Progress) -> None:
    patience = Patience(connection.limits)
    for session in range(MAX_SESSIONS):
        # The last one in one piece, for registries that take no chunks.
        in_chunks = len(data) > connection.limits.chunk_bytes and session < MAX_SESSIONS - 1
        try:
            location = await _begin(connection)
            if in_chunks:
                location = await _send_chunks(connection, location, data, progress)
            await _finish(connection, location, data, b"" if in_chunks else data)
        except _SessionLostError as lost:
            if session == MAX_SESSIONS - 1:
                raise lost.reason or bad_answer("it loses uploads", str(connection.reference)) from lost
            if lost.reason is not None and lost.reason.again:
                await patience.rest(lost.reason)
        else:
            return


async def _begin(connection: Connection) -> URL:
    answer = await connection.call("POST", connection.url("blobs/uploads/"), data=b"", expect=(202,))
    return _location(connection, answer, connection.url("blobs/uploads/"))


async def _finish(connection: Connection, location: URL, data: Data, rest: Data) -> None:
    separator = "&" if location.raw_query_string else "?"
    url = URL(f"{location}{separator}digest={_digest(data)}", encoded=True)
    try:
        answer = await connection.call("PUT", url, headers=_BINARY, data=rest, expect=(201, 400, 404), again=False)
    except RegistryError as error:
        if error.again and await _is_there(connection, data):
            return
        if error.again:
            raise _SessionLostError(error) from error
        raise
    # 400: the registry has other bytes than the digest says, as after a chunk that it took twice
    if answer.status != 201 and not await _is_there(connection, data):
        raise _SessionLostError


async def _send_chunks(connection: Connection, location: URL, data: Data, progress: Progress) -> URL:
    """Returns where the upload is to be finished."""
    patience = Patience(connection.limits)
    offset = 0
    while offset < len(data):
        chunk = data[offset : offset + connection.limits.chunk_bytes]
        headers = {**_BINARY, "Content-Range": f"{offset}-{offset + len(chunk) - 1}"}
        try:
            answer = await connection.call(
                "PATCH", location, headers=headers, data=chunk, expect=_ANSWERS_TO_A_CHUNK, again=False
            )
        except RegistryError as error:
            await patience.rest(error)
            answer = await connection.call("GET", location, expect=(204, 404))
        else:
            if answer.status == 416:
                answer = await connection.call("GET", location, expect=(204, 404))
            if answer.status in (202, 204) and _offset(answer, offset + len(chunk), len(data)) <= offset:
                raise _SessionLostError(bad_answer("it takes chunks and keeps nothing of them", str(location.origin())))
        if answer.status not in (202, 204):
            raise _SessionLostError
        location = _location(connection, answer, location)
        before, offset = offset, _offset(answer, offset + len(chunk), len(data))
        if offset > before:
            patience.progress()
        progress.at(offset)
    return location


def _offset(answer: Answer, expected: int, size: int) -> int:
    """How many bytes the registry has. Registries write `0-0` for none."""
    text = answer.headers.get("Range", "")
    if not text:
        return expected if answer.status == 202 else 0
    found = _RANGE.match(text)
    if found is None or int(found[1]) >= size:
        raise bad_answer("it says that it has more than was sent", text[:100])
    return int(found[1]) + 1 if found[1] != "0" else 0


def _location(connection: Connection, answer: Answer, base: URL) -> URL:
    text = answer.headers.get("Location", "")
    if not text and answer.status != 204:
        raise bad_answer("it does not say where to upload to", str(connection.reference))
    return connection.safe(text, base) if text else base


def _digest(data: Data) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
