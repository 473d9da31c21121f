"""Registries that lie, break off, are slow or want too much, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import email.utils
import errno
import json
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

import edgeclave.registry.pull
from edgeclave.registry import Reference, RegistryAccess, RegistryError
from edgeclave.registry.pull import pull_package, read_manifest
from edgeclave.ta.package import encode_oci_manifest, encode_package, read_package
from tests.fixtures.stand_in_registry import StandInRegistry, digest_of

WASM, SIGNATURE = b"\0asm" + bytes(range(256)) * 4000, b"signature"
PACKAGE = encode_package(WASM, SIGNATURE, {"org.opencontainers.image.title": "small"})[0]
Pull = Callable[..., Awaitable[bytes]]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def only(part: str, answer: Answer, times: int = 1_000_000, path: str = "") -> Answer:
    """A lie about one kind of request, told so many times."""
    told = 0

    async def lie(request: web.Request) -> Any:
        nonlocal told
        if f"/{part}/" not in request.path or path not in request.path or told >= times:
            return None
        told += 1
        return await answer(request)

    return lie


def saying(status: int = 200, body: bytes = b"", **headers: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(bytes(64 << 10))
    return response


async def dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b"{")
            await asyncio.sleep(0.1)
    return response


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    raise AssertionError


async def broken(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def breaking_off(after: int, data: bytes = WASM) -> Answer:
    """Sends so many bytes of what was asked for and cuts the connection."""

    async def answer(request: web.Request) -> web.StreamResponse:
        start = request.http_range.start or 0
        headers = {
            "Content-Length": str(len(data) - start),
            "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}",
        }
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        await response.write(data[start : start + after])
        await asyncio.sleep(0.01)
        assert request.transport is not None
        request.transport.abort()
        return response

    return answer


async def test_what_was_pushed_comes_back_byte_for_byte(registry: StandInRegistry, pull: Pull, tmp_path: Path) -> None:
    assert await pull(registry.hold(WASM, SIGNATURE)) == PACKAGE
    assert await pull(registry.reference("1")) == PACKAGE
    assert [path.name for path in tmp_path.iterdir()] == ["out.ta"]


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        pytest.param(only("manifests", saying(body=b"{}")), "registry-wrong-digest", id="another manifest"),
        pytest.param(
            only("manifests", saying(body=b"<html>", Content_Type="text/html")),
            "registry-wrong-digest",
            id="a web page",
        ),
        pytest.param(only("manifests", saying(404)), "registry-not-found", id="no manifest"),
        pytest.param(only("manifests", saying(403)), "registry-denied", id="not allowed"),
        pytest.param(only("manifests", saying(418)), "registry-bad-answer", id="a status from nowhere"),
        pytest.param(
            only("manifests", saying(400, Content_Type="text/html")), "registry-bad-answer", id="a proxy's page"
        ),
        pytest.param(only("manifests", saying(503)), "registry-failed", id="down"),
        pytest.param(only("manifests", saying(429)), "registry-busy", id="too many requests"),
        pytest.param(only("manifests", endless), "registry-bad-answer", id="a manifest without end"),
        pytest.param(only("manifests", dripping), "registry-too-slow", id="a manifest that drips"),
        pytest.param(only("manifests", silent), "registry-too-slow", id="silence"),
        pytest.param(only("manifests", broken), "registry-unreachable", id="hangs up"),
        pytest.param(only("manifests", saying(302)), "registry-bad-answer", id="redirects nowhere"),
        pytest.param(
            only("manifests", saying(302, Location="file:///etc/passwd")),
            "registry-bad-answer",
            id="redirects to a file",
        ),
        pytest.param(
            only("manifests", saying(302, Location="http://10.0.0.1/")),
            "registry-insecure",
            id="redirects to plain http",
        ),
        pytest.param(
            only("manifests", saying(302, Location="/v2/plant/small/manifests/1")), "registry-bad-answer", id="circles"
        ),
        pytest.param(only("manifests", saying(401)), "registry-bad-answer", id="401 without a way to log in"),
        pytest.param(
            only("manifests", saying(401, WWW_Authenticate='Basic realm="x"')), "registry-login", id="401 for ever"
        ),
        pytest.param(
            only("manifests", saying(401, WWW_Authenticate="Bearer")),
            "registry-bad-answer",
            id="Bearer without a realm",
        ),
        pytest.param(
            only("manifests", saying(401, WWW_Authenticate='Bearer realm="http://10.0.0.1/token"')),
            "registry-insecure",
            id="a realm on plain http",
        ),
        pytest.param(only("blobs", saying(404)), "registry-not-found", id="no blob"),
        pytest.param(only("blobs", saying(body=b"x")), "registry-wrong-size", id="a shorter blob"),
        pytest.param(only("blobs", saying(body=bytes(9))), "registry-wrong-digest", id="another blob of the same size"),
        pytest.param(only("blobs", saying(body=bytes(1 << 20))), "registry-wrong-size", id="a longer blob"),
        pytest.param(only("blobs", endless), "registry-wrong-size", id="a blob without end"),
        pytest.param(only("blobs", silent), "registry-too-slow", id="a blob that does not come"),
        pytest.param(
            only("blobs", saying(body=SIGNATURE, Content_Encoding="gzip")), None, id="a wrong encoding is not undone"
        ),
    ],
)
async def test_one_error_with_advice_and_nothing_left(
    registry: StandInRegistry, pull: Pull, tmp_path: Path, lie: Answer, code: str | None
) -> None:
    reference = registry.hold(WASM, SIGNATURE)
    registry.lies.append(only_signature(lie))
    if code is None:
        assert await pull(reference) == PACKAGE
        return
    with pytest.raises(RegistryError) as refused:
        await pull(reference)
    assert refused.value.code == code
    assert refused.value.advice
    assert refused.value.where
    assert not (tmp_path / "out.ta").exists()
    assert len(registry.asked) < 15


def only_signature(lie: Answer) -> Answer:
    """Of the blobs it is the small one that is lied about."""

    async def told(request: web.Request) -> Any:
        return None if request.path.endswith(digest_of(WASM)) else await lie(request)

    return told


async def test_by_tag_a_web_page_is_called_one(registry: StandInRegistry, pull: Pull) -> None:
    registry.lies.append(saying(body=b"<html>please log in", Content_Type="text/html; charset=utf-8"))
    with pytest.raises(RegistryError, match="web page") as refused:
        await pull(registry.reference())
    assert refused.value.code == "registry-bad-answer"


async def test_by_tag_the_registrys_own_digest_must_fit(registry: StandInRegistry, pull: Pull) -> None:
    registry.hold(WASM, SIGNATURE)
    manifest = registry.manifests["1"]
    registry.lies.append(only("manifests", saying(body=manifest, Docker_Content_Digest="sha256:" + "0" * 64)))
    with pytest.raises(RegistryError) as refused:
        await pull(registry.reference())
    assert refused.value.code == "registry-wrong-digest"


async def test_an_old_package_under_the_new_tag_is_not_taken(registry: StandInRegistry, pull: Pull) -> None:
    new = registry.hold(WASM, b"new", tag="2")
    registry.hold(WASM, b"old", tag="2")
    assert read_package(await pull(new)).signature == b"new"


async def test_what_broke_off_goes_on_where_it_was(registry: StandInRegistry, pull: Pull, tmp_path: Path) -> None:
    reference = registry.hold(WASM, SIGNATURE)
    third = len(WASM) // 3
    registry.lies.append(only("blobs", breaking_off(third), times=2, path=digest_of(WASM)))
    assert await pull(reference) == PACKAGE
    ranges = [asked.headers.get("Range") for asked in registry.asked if asked.path.endswith(digest_of(WASM))]
    assert ranges == [None, f"bytes={third}-", f"bytes={2 * third}-"]


async def test_many_breaks_are_borne_while_something_comes(registry: StandInRegistry, pull: Pull) -> None:
    reference = registry.hold(WASM, SIGNATURE)
    registry.lies.append(only("blobs", breaking_off(len(WASM) // 9), times=8, path=digest_of(WASM)))
    assert await pull(reference) == PACKAGE


async def test_the_next_pull_goes_on_where_the_last_one_ended(
    registry: StandInRegistry, pull: Pull, tmp_path: Path
) -> None:
    reference = registry.hold(WASM, SIGNATURE)
    registry.lies.append(only("blobs", breaking_off(100_000), path=digest_of(WASM), times=1))
    registry.lies.append(only("blobs", saying(503), path=digest_of(WASM), times=2))
    with pytest.raises(RegistryError):
        await pull(reference)
    registry.asked.clear()
    assert await pull(reference) == PACKAGE
    wasm = [asked for asked in registry.asked if asked.path.endswith(digest_of(WASM))]
    assert [asked.headers["Range"] for asked in wasm] == ["bytes=100000-"]
    assert registry.count("GET", "blobs") == 1, "the signature was there"


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(b"x" * 1000, id="other bytes"),
        pytest.param(WASM[:-1] + b"x", id="all, the last one wrong"),
        pytest.param(WASM + b"x", id="too many"),
    ],
)
async def test_damaged_parts_of_the_last_pull_are_healed(
    registry: StandInRegistry, pull: Pull, tmp_path: Path, kept: bytes
) -> None:
    reference = registry.hold(WASM, SIGNATURE)
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / digest_of(WASM).removeprefix("sha256:")).write_bytes(kept)
    assert await pull(reference) == PACKAGE


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(saying(body=WASM), id="the whole again, for it knows no ranges"),
        pytest.param(saying(416), id="range not satisfiable"),
        pytest.param(saying(206, WASM[:10], Content_Range="bytes 0-9/1024004"), id="another range"),
        pytest.param(saying(206, WASM[1000:], Content_Range="bytes 1000-1024003/99"), id="of another size"),
        pytest.param(saying(206, WASM[1000:]), id="no Content-Range"),
    ],
)
async def test_odd_answers_to_a_range(registry: StandInRegistry, pull: Pull, tmp_path: Path, answer: Answer) -> None:
    reference = registry.hold(WASM, SIGNATURE)
    (tmp_path / "partial").mkdir()
    part = tmp_path / "partial" / digest_of(WASM).removeprefix("sha256:")
    part.write_bytes(WASM[:1000])
    registry.lies.append(only("blobs", answer, times=1, path=digest_of(WASM)))
    with contextlib.suppress(RegistryError):
        assert await pull(reference) == PACKAGE
        return
    assert await pull(reference) == PACKAGE


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("answer", [saying(503), saying(500), saying(429, Retry_After="0"), broken, silent])
async def test_what_passes_is_tried_again(registry: StandInRegistry, pull: Pull, answer: Answer, times: int) -> None:
    reference = registry.hold(WASM, SIGNATURE)
    registry.lies.append(only("manifests", answer, times=times))
    registry.lies.append(only("blobs", answer, times=times))
    assert await pull(reference) == PACKAGE


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda: "1", id="seconds"),
        pytest.param(lambda: email.utils.formatdate(time.time() + 2, usegmt=True), id="a date"),
    ],
)
async def test_retry_after_is_waited_for(
    registry: StandInRegistry, pull: Pull, access: RegistryAccess, ask: Callable[[], str]
) -> None:
    reference = registry.hold(WASM, SIGNATURE)
    registry.lies.append(only("manifests", saying(429, Retry_After=ask()), times=1))
    patient = dataclasses.replace(access, limits=dataclasses.replace(access.limits, longest_wait_seconds=5))
    begin = time.monotonic()
    assert await pull(reference, patient) == PACKAGE
    assert 0.9 <= time.monotonic() - begin < 9


@pytest.mark.parametrize(
    ("retry_after", "told"),
    [("600", 600), ("999999999", 3600), ("-1", None), ("soon", None), ("9" * 400, None), ("", None)],
)
async def test_a_long_retry_after_is_told_and_not_waited_for(
    registry: StandInRegistry, pull: Pull, retry_after: str, told: float | None
) -> None:
    registry.lies.append(saying(429, Retry_After=retry_after))
    with pytest.raises(RegistryError) as refused:
        await pull(registry.reference())
    assert (refused.value.code, refused.value.retry_after) == ("registry-busy", told)


async def test_the_registrys_own_words_are_shown_without_control_characters(
    registry: StandInRegistry, pull: Pull
) -> None:
    said = {"errors": [{"code": "DENIED", "message": "no\x1b[2Jway " + "x" * 5000}]}
    registry.lies.append(saying(403, json.dumps(said).encode()))
    with pytest.raises(RegistryError) as refused:
        await pull(registry.reference())
    assert "DENIED no [2Jway" in refused.value.what
    assert len(refused.value.what) < 300


async def test_nothing_listens_and_nothing_is_called_so(pull: Pull, access: RegistryAccess) -> None:
    slow = dataclasses.replace(access, limits=dataclasses.replace(access.limits, first_wait_seconds=30))
    for host in ("localhost:1", "no-such-host.invalid"):
        begin = time.monotonic()
        with pytest.raises(RegistryError) as refused:
            await pull(Reference.parse(f"{host}/a:1"), slow)
        assert refused.value.code == "registry-unreachable"
        assert time.monotonic() - begin < 15, "not tried again"


async def test_tls_is_asked_of_every_other_machine(
    registry: StandInRegistry, pull: Pull, access: RegistryAccess
) -> None:
    reference = dataclasses.replace(registry.hold(WASM, SIGNATURE), host=f"127.0.0.1.nip.invalid:{registry.host[10:]}")
    with pytest.raises(RegistryError) as refused:
        await pull(reference)
    assert "https://" in refused.value.where
    assert registry.asked == []


# The Authorization header


@pytest.fixture
async def elsewhere() -> Any:
    async with StandInRegistry().running() as other:
        yield other


async def _wants_login(request: web.Request) -> web.Response | None:
    if request.headers.get("Authorization") == "Basic ZWRnZTpzM2NyZXQ=":
        return None
    return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="test"'})


async def test_a_redirect_to_another_host_carries_no_authorization(
    registry: StandInRegistry, elsewhere: StandInRegistry, pull: Pull
) -> None:
    reference = registry.hold(WASM, SIGNATURE)
    elsewhere.hold(WASM, SIGNATURE)

    async def redirect(request: web.Request) -> web.Response | None:
        if "/blobs/" not in request.path:
            return None
        return web.Response(status=307, headers={"Location": f"http://{elsewhere.host}{request.path}?sig=a%2Fb"})

    registry.lies += [_wants_login, redirect]
    assert await pull(reference) == PACKAGE
    assert elsewhere.count("GET", "blobs") == 2
    assert all("Authorization" not in asked.headers for asked in elsewhere.asked)
    assert [asked.headers.get("Authorization") is not None for asked in registry.asked] == [False, True, True, True]


async def test_a_redirect_to_another_port_of_the_host_carries_none_either(
    registry: StandInRegistry, elsewhere: StandInRegistry, pull: Pull
) -> None:
    elsewhere.hold(WASM, SIGNATURE)
    registry.lies += [
        _wants_login,
        lambda request: saying(302, Location=f"http://{elsewhere.host}{request.path}")(request),
    ]
    assert await pull(registry.reference()) == PACKAGE
    assert all("Authorization" not in asked.headers for asked in elsewhere.asked)


@pytest.mark.parametrize("challenge", ['Basic realm="give"', 'Bearer realm="http://{host}/token"'])
async def test_a_stranger_that_wants_a_login_gets_none(
    registry: StandInRegistry, elsewhere: StandInRegistry, pull: Pull, challenge: str
) -> None:
    registry.lies.append(lambda request: saying(302, Location=f"http://{elsewhere.host}{request.path}")(request))
    elsewhere.lies.append(saying(401, WWW_Authenticate=challenge.format(host=elsewhere.host)))
    with pytest.raises(RegistryError, match="another host") as refused:
        await pull(registry.reference())
    assert refused.value.code == "registry-bad-answer"
    assert len(elsewhere.asked) == 1, "nobody asks it for a token"
    assert all("Authorization" not in asked.headers for asked in elsewhere.asked)


async def test_netrc_is_not_read(
    registry: StandInRegistry, pull: Pull, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    await pull(registry.hold(WASM, SIGNATURE))
    assert all("Authorization" not in asked.headers for asked in registry.asked)


# The disk


async def test_a_disk_without_room_is_not_begun_to_be_filled(
    registry: StandInRegistry, pull: Pull, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=2 * len(WASM))
    monkeypatch.setattr(edgeclave.registry.pull.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RegistryError) as refused:
        await pull(registry.hold(WASM, SIGNATURE))
    assert refused.value.code == "disk-full"
    assert registry.count("GET", "blobs") == 0


async def test_a_disk_that_gets_full_meanwhile_is_given_back(
    registry: StandInRegistry, pull: Pull, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *, append: bool) -> Any:
        return os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb", buffering=0)

    monkeypatch.setattr(edgeclave.registry.pull, "_open", full)
    with pytest.raises(RegistryError) as refused:
        await pull(registry.hold(WASM, SIGNATURE))
    assert refused.value.code == "disk-full"
    assert isinstance(refused.value.__cause__, OSError)
    assert refused.value.__cause__.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


async def test_cancelled_it_keeps_what_came(registry: StandInRegistry, access: RegistryAccess, tmp_path: Path) -> None:
    reference = registry.hold(WASM, SIGNATURE)

    async def halting(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(WASM[:300_000])
        await asyncio.sleep(30)
        return response

    registry.lies.append(only("blobs", halting, path=digest_of(WASM)))
    patient = dataclasses.replace(access, limits=dataclasses.replace(access.limits, stall_seconds=30))
    part = tmp_path / "partial" / digest_of(WASM).removeprefix("sha256:")
    pulling = asyncio.ensure_future(pull_package(reference, tmp_path / "out.ta", tmp_path / "partial", patient))
    while not part.exists() or part.stat().st_size < 1:
        await asyncio.sleep(0.01)
    pulling.cancel()
    await asyncio.gather(pulling, return_exceptions=True)
    assert pulling.cancelled()
    assert not (tmp_path / "out.ta").exists()
    assert WASM.startswith(part.read_bytes())


async def test_a_pull_has_an_end(registry: StandInRegistry, pull: Pull, access: RegistryAccess) -> None:
    registry.lies.append(only("blobs", dripping))
    limits = dataclasses.replace(access.limits, total_seconds=0.5)
    with pytest.raises(RegistryError) as refused:
        await pull(registry.hold(b"x" * 1000, b"y" * 1000), dataclasses.replace(access, limits=limits))
    assert refused.value.code == "registry-too-slow"


# Manifests

GOOD = json.loads(encode_oci_manifest(WASM, SIGNATURE, {"a": "b"}))


def changed(**members: Any) -> bytes:
    return json.dumps({**GOOD, **members}, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"", "no manifest at all", id="empty"),
        pytest.param(b"[]", "no manifest at all", id="a list"),
        pytest.param(b"[" * 10_000, "no manifest at all", id="deep"),
        pytest.param(b"\xff\xfe", "no manifest at all", id="no text"),
        pytest.param(changed(mediaType="application/vnd.oci.image.index.v1+json"), "an index of images", id="an index"),
        pytest.param(changed(artifactType="application/vnd.other"), "vnd.other", id="another artifact"),
        pytest.param(b'{"schemaVersion":2,"config":{},"layers":[]}', "an image", id="an image"),
        pytest.param(changed(layers=GOOD["layers"][::-1]), "calls itself", id="parts the other way round"),
        pytest.param(changed(layers=GOOD["layers"] * 500), "calls itself", id="a thousand parts"),
        pytest.param(
            changed(layers=[{**GOOD["layers"][0], "urls": ["http://x"]}, GOOD["layers"][1]]), "calls itself", id="urls"
        ),
        pytest.param(
            changed(layers=[{**GOOD["layers"][0], "size": 0}, GOOD["layers"][1]]), "bytes, and 1 to", id="an empty part"
        ),
        pytest.param(changed(subject=GOOD["config"]), "calls itself", id="a subject"),
        pytest.param(
            changed(layers=[{**GOOD["layers"][0], "size": -1}, GOOD["layers"][1]]), "calls itself", id="negative"
        ),
        pytest.param(
            changed(layers=[{**GOOD["layers"][0], "size": 1 << 40}, GOOD["layers"][1]]),
            "bytes, and 1 to",
            id="a terabyte",
        ),
        pytest.param(
            changed(layers=[GOOD["layers"][0], {**GOOD["layers"][1], "size": 1 << 30}]),
            "bytes, and 1 to",
            id="a long signature",
        ),
        pytest.param(
            changed(layers=[{**GOOD["layers"][0], "digest": "sha256:../../etc"}, GOOD["layers"][1]]),
            "calls itself",
            id="a path",
        ),
        pytest.param(json.dumps(GOOD).encode(), "calls itself", id="another form of the same"),
    ],
)
def test_what_is_no_trusted_application(data: bytes, said: str) -> None:
    with pytest.raises(RegistryError) as refused:
        read_manifest(data, "r.example/a:1")
    assert refused.value.code == "not-a-trusted-app"
    assert said in refused.value.what
    assert refused.value.advice


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*GOOD, "digest", "size"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.one_of(
        st.binary(max_size=200),
        _JSON.map(lambda value: json.dumps(value).encode()),
        st.dictionaries(st.sampled_from(sorted(GOOD)), _JSON).map(lambda members: changed(**members)),
    )
)
def test_any_bytes_are_a_manifest_in_its_one_form_or_refused(data: bytes) -> None:
    try:
        manifest = read_manifest(data, "r.example/a:1")
    except RegistryError:
        return
    assert data == changed(annotations=manifest.annotations)
