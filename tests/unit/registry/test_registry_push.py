"""Uploads to registries that lose, forget, break off and lie."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from aiohttp import web

from edgeclave.registry import Reference, RegistryAccess, RegistryError, push_package
from edgeclave.registry.push import MAX_SESSIONS
from edgeclave.ta.package import encode_package, read_package
from tests.fixtures.stand_in_registry import StandInRegistry, digest_of

WASM, SIGNATURE = b"\0asm" + bytes(range(256)) * 4000 * 3, b"signature"
PACKAGE = read_package(encode_package(WASM, SIGNATURE, {"org.opencontainers.image.title": "small"})[0])
CHUNKS = 3


def lying(method: str, part: str, answer: Any, *, times: int = 1_000_000, after: int = 0) -> Any:
    """In place of the registry, after so many requests of that kind, so many times."""
    seen = 0

    async def lie(request: web.Request) -> Any:
        nonlocal seen
        if method != request.method or part not in request.path:
            return None
        seen += 1
        return await answer(request) if after < seen <= after + times else None

    return lie


def saying(status: int, **headers: str) -> Any:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


async def broken(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def check(registry: StandInRegistry, reference: Reference) -> None:
    assert {digest_of(WASM), digest_of(SIGNATURE), digest_of(b"{}")} <= registry.blobs.keys()
    assert registry.blobs[digest_of(WASM)] == WASM
    assert registry.manifests[PACKAGE.digest] == registry.manifests[reference.tag or PACKAGE.digest]


async def test_pushed_and_pushed_again(registry: StandInRegistry, access: RegistryAccess) -> None:
    pushed = await push_package(PACKAGE, registry.reference(), access)
    assert str(pushed.reference) == f"{registry.host}/plant/small:1@{PACKAGE.digest}"
    assert (pushed.sent, pushed.present) == (len(WASM) + len(SIGNATURE) + 2, 0)
    assert registry.count("PATCH", "uploads") == CHUNKS
    await check(registry, pushed.reference)

    registry.asked.clear()
    again = await push_package(PACKAGE, registry.reference("2"), access)
    assert (again.sent, again.present) == (0, len(WASM) + len(SIGNATURE) + 2)
    assert registry.count("POST", "uploads") == 0
    await check(registry, again.reference)


async def test_by_digest_alone(registry: StandInRegistry, access: RegistryAccess) -> None:
    reference = dataclasses.replace(registry.reference(), tag=None)
    pushed = await push_package(PACKAGE, reference, access)
    assert list(registry.manifests) == [PACKAGE.digest]
    assert str(pushed.reference) == f"{registry.host}/plant/small@{PACKAGE.digest}"


async def test_another_digest_than_the_packages_is_refused(registry: StandInRegistry, access: RegistryAccess) -> None:
    with pytest.raises(RegistryError) as refused:
        await push_package(PACKAGE, registry.reference().at("sha256:" + "0" * 64), access)
    assert refused.value.code == "bad-registry-reference"
    assert registry.asked == []


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lying("PATCH", "uploads", broken, times=1, after=1), id="a connection that breaks in a chunk"),
        pytest.param(lying("PATCH", "uploads", saying(503), times=2, after=1), id="503 for a chunk"),
        pytest.param(lying("PATCH", "uploads", saying(429, Retry_After="0"), times=1), id="429 for a chunk"),
        pytest.param(lying("PATCH", "uploads", saying(416), times=1), id="a range that does not fit"),
        pytest.param(lying("PATCH", "uploads", saying(404), times=1, after=2), id="an upload that got lost"),
        pytest.param(lying("PUT", "uploads", saying(400), times=1, after=2), id="other bytes than the digest says"),
        pytest.param(lying("PUT", "uploads", broken, times=1), id="a connection that breaks at the end"),
        pytest.param(lying("PATCH", "uploads", saying(405)), id="a registry that takes no chunks"),
        pytest.param(lying("PATCH", "uploads", saying(416)), id="a registry that has ranges of its own"),
        pytest.param(
            lying("PATCH", "uploads", saying(202, Location="/v2/plant/small/blobs/uploads/x", Range="0-0")),
            id="a registry that keeps nothing of chunks",
        ),
        pytest.param(lying("POST", "uploads", saying(500), times=2), id="500 for the beginning"),
        pytest.param(lying("HEAD", "blobs", broken, times=1), id="a connection that breaks at the first look"),
        pytest.param(lying("PUT", "manifests", saying(502), times=1), id="502 for the manifest"),
    ],
)
async def test_an_upload_goes_on(registry: StandInRegistry, access: RegistryAccess, lie: Any) -> None:
    registry.lies.append(lie)
    pushed = await push_package(PACKAGE, registry.reference(), access)
    await check(registry, pushed.reference)


async def test_a_slow_line_is_no_reason_to_give_up(registry: StandInRegistry, access: RegistryAccess) -> None:
    """A chunk may take longer than an answer or a silence, for much of it waits in the system to be sent."""

    async def slow(request: web.Request) -> Any:
        if request.method != "PATCH":
            return None
        upload = request.path.rpartition("/")[2]
        async for data in request.content.iter_chunked(100_000):
            registry.uploads[upload] += data
            await asyncio.sleep(0.1)
        return registry.where(upload, 202)

    limits = dataclasses.replace(access.limits, answer_seconds=0.5, stall_seconds=0.5, slowest_bytes_per_second=200_000)
    registry.lies.append(slow)
    pushed = await push_package(PACKAGE, registry.reference(), dataclasses.replace(access, limits=limits))
    await check(registry, pushed.reference)
    assert registry.count("PATCH", "uploads") == CHUNKS


async def test_after_a_break_only_the_rest_is_sent(registry: StandInRegistry, access: RegistryAccess) -> None:
    registry.lies.append(lying("PATCH", "uploads", broken, times=1, after=1))
    await push_package(PACKAGE, registry.reference(), access)
    ranges = [asked.headers["Content-Range"] for asked in registry.asked if asked.method == "PATCH"]
    chunk = access.limits.chunk_bytes
    assert ranges == [
        f"0-{chunk - 1}",
        f"{chunk}-{2 * chunk - 1}",
        f"{chunk}-{2 * chunk - 1}",
        f"{2 * chunk}-{len(WASM) - 1}",
    ]
    assert registry.count("POST", "uploads") == CHUNKS, "one for each part"


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        pytest.param(lying("POST", "uploads", saying(202)), "registry-bad-answer", id="no place to upload to"),
        pytest.param(
            lying("POST", "uploads", saying(202, Location="http://10.0.0.1/x")), "registry-insecure", id="plain http"
        ),
        pytest.param(lying("POST", "uploads", saying(307, Location="/x")), "registry-bad-answer", id="redirected"),
        pytest.param(lying("POST", "uploads", saying(403)), "registry-denied", id="not allowed to push"),
        pytest.param(lying("POST", "uploads", saying(405)), "registry-bad-answer", id="read only"),
        pytest.param(
            lying("PATCH", "uploads", saying(202, Location="/v2/plant/small/blobs/uploads/x", Range="0-99999999999")),
            "registry-bad-answer",
            id="it has more than was sent",
        ),
        pytest.param(
            lying("PATCH", "uploads", saying(202, Location="/v2/plant/small/blobs/uploads/x", Range="all")),
            "registry-bad-answer",
            id="a range that is none",
        ),
        pytest.param(lying("PUT", "uploads", saying(404)), "registry-bad-answer", id="it loses every upload"),
        pytest.param(lying("PUT", "uploads", saying(503)), "registry-failed", id="it fails at every end"),
        pytest.param(lying("PATCH", "uploads", saying(500)), "registry-failed", id="it fails"),
        pytest.param(lying("PUT", "uploads", saying(400)), "registry-bad-answer", id="it never has what was sent"),
        pytest.param(lying("PUT", "uploads", saying(413)), "registry-bad-answer", id="too large for it"),
        pytest.param(lying("PUT", "manifests", saying(415)), "registry-bad-answer", id="no artifacts here"),
        pytest.param(
            lying("PUT", "manifests", saying(201)), "registry-not-found", id="it says so and does not keep it"
        ),
        pytest.param(
            lying("GET", "manifests", saying(200)), "registry-wrong-digest", id="it gives back something else"
        ),
        pytest.param(
            lying("HEAD", "blobs", saying(401, WWW_Authenticate="Basic")), "registry-login", id="401 for ever"
        ),
    ],
)
async def test_one_error_with_advice(registry: StandInRegistry, access: RegistryAccess, lie: Any, code: str) -> None:
    registry.lies.append(lie)
    with pytest.raises(RegistryError) as refused:
        await push_package(PACKAGE, registry.reference(), access)
    assert refused.value.code == code
    assert refused.value.advice
    assert len(registry.asked) < 20
    assert registry.count("POST", "uploads") <= 2 + MAX_SESSIONS


async def test_an_upload_to_another_host_carries_no_authorization(
    registry: StandInRegistry, access: RegistryAccess
) -> None:
    async with StandInRegistry(blobs=registry.blobs).running() as store:

        async def wants_login(request: web.Request) -> Any:
            if request.headers.get("Authorization", "").startswith("Basic "):
                return None
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="test"'})

        async def elsewhere(request: web.Request) -> Any:
            if request.method != "POST":
                return None
            store.uploads["x"] = bytearray()
            location = f"http://{store.host}/v2/plant/small/blobs/uploads/x"
            return web.Response(status=202, headers={"Location": location})

        registry.lies += [wants_login, elsewhere]
        pushed = await push_package(PACKAGE, registry.reference(), access)
        await check(registry, pushed.reference)
        assert store.count("PUT", "uploads") == CHUNKS, "one for each part"
        assert all("Authorization" not in asked.headers for asked in store.asked)
