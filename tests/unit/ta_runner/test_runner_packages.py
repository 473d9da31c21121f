from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from ta_runner.packages import FetchError, PackageCache

from edgeclave.errors import EdgeclaveError, PackageError
from edgeclave.ta.package import DEFAULT_LIMITS
from tests.fixtures.certificates import Authority


@pytest.fixture
def cache(tmp_path: Path) -> PackageCache:
    return PackageCache(tmp_path / "cache")


async def test_fetched_once_then_offline(cache: PackageCache, make_package: Any, tmp_path: Path) -> None:
    package = make_package()
    settings = package.settings(package=f"file://{package.path}")
    fetched = await cache.get(settings)
    assert fetched.path.read_bytes() == package.path.read_bytes()
    assert fetched.identity.signer_id.hex() == package.signer
    package.path.unlink()
    assert (await cache.get(settings)).path == fetched.path
    assert (await PackageCache(tmp_path / "cache").get(settings)).identity == fetched.identity


async def test_damaged_in_the_cache_is_fetched_again(cache: PackageCache, make_package: Any, tmp_path: Path) -> None:
    package = make_package(b"x" * 5000)
    path = (await cache.get(package.settings())).path
    path.write_bytes(path.read_bytes()[:-1000])
    again = await PackageCache(tmp_path / "cache").get(package.settings())
    assert again.path.read_bytes() == package.path.read_bytes()


@pytest.mark.parametrize(
    ("change", "kind", "code"),
    [
        pytest.param({"digest": "sha256:" + "0" * 64}, PackageError, "wrong-digest", id="another digest"),
        pytest.param({"signer": "0" * 64}, PackageError, "wrong-signer", id="another signer"),
        pytest.param({"package": "/no/such"}, FetchError, "package-unavailable", id="no such file"),
        pytest.param({"package": "/"}, FetchError, "package-unavailable", id="a folder"),
        pytest.param({"package": "http://host/a"}, PackageError, "insecure-package-url", id="http"),
        pytest.param({"package": "ftp://host/a"}, PackageError, "bad-package-reference", id="another scheme"),
        pytest.param({"package": "file://host/a"}, PackageError, "bad-package-reference", id="file of another host"),
        pytest.param({"package": "//host/a"}, PackageError, "bad-package-reference", id="no scheme but a host"),
        pytest.param({"package": "https://127.0.0.1:1/a"}, FetchError, "package-unavailable", id="nobody listens"),
    ],
)
async def test_refused(
    cache: PackageCache, make_package: Any, change: dict[str, str], kind: type[EdgeclaveError], code: str
) -> None:
    with pytest.raises(kind) as refused:
        await cache.get(make_package().settings(**change))
    assert refused.value.code == code
    assert refused.value.advice


async def test_nothing_refused_stays_behind(cache: PackageCache, make_package: Any, tmp_path: Path) -> None:
    with pytest.raises(PackageError):
        await cache.get(make_package().settings(digest="sha256:" + "0" * 64))
    assert list((tmp_path / "cache").iterdir()) == []


async def test_two_applications_may_ask_for_the_same_package_at_once(cache: PackageCache, make_package: Any) -> None:
    package = make_package(b"x" * 5_000_000)
    wrong = package.settings(signer="0" * 64)
    one, refused, other = await asyncio.gather(
        cache.get(package.settings()), cache.get(wrong), cache.get(package.settings()), return_exceptions=True
    )
    assert one == other
    assert refused.code == "wrong-signer"  # type: ignore[union-attr]


async def test_tampered_package(cache: PackageCache, make_package: Any) -> None:
    package = make_package(b"x" * 5000)
    data = bytearray(package.path.read_bytes())
    data[data.index(b"xxxx") + 10] ^= 1
    package.path.write_bytes(data)
    with pytest.raises(PackageError) as refused:
        await cache.get(package.settings())
    assert refused.value.code == "wrong-digest"


async def test_too_large_is_not_copied(cache: PackageCache, make_package: Any, tmp_path: Path) -> None:
    large = tmp_path / "large.ta"
    with large.open("wb") as file:
        file.truncate(DEFAULT_LIMITS.package + 1)
    with pytest.raises(PackageError) as refused:
        await cache.get(make_package().settings(package=str(large)))
    assert refused.value.code == "package-too-large"


def test_half_fetched_files_of_a_crash_are_removed(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "abc.part").write_bytes(b"half")
    PackageCache(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


async def test_only_what_may_run_again_is_kept(cache: PackageCache, make_package: Any) -> None:
    old, new = make_package(security_version=1), make_package(security_version=2)
    await cache.get(old.settings())
    await cache.get(new.settings())
    cache.keep_only([new.digest])
    assert (cache.cached(old.digest), cache.cached(new.digest)) == (False, True)


@asynccontextmanager
async def https_server(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    authority = Authority(tmp_path)
    pem = tmp_path / "server.pem"
    pem.write_bytes(authority.server("localhost").pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    root = tmp_path / "root.pem"
    root.write_bytes(authority.root.public_bytes(serialization.Encoding.PEM))
    monkeypatch.setenv("SSL_CERT_FILE", str(root))
    application = web.Application()
    application.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"https://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_over_https(
    cache: PackageCache, make_package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = make_package()

    async def serve(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(package.path)

    async with https_server(tmp_path, monkeypatch, serve) as url:
        fetched = await cache.get(package.settings(package=f"{url}/small.ta"))
    assert fetched.path.read_bytes() == package.path.read_bytes()


async def _missing(request: web.Request) -> web.StreamResponse:
    return web.Response(status=404)


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(bytes(1 << 20))
    return response


async def _loop(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/again")


async def _page(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>please log in</html>")


@pytest.mark.parametrize(
    ("serve", "code"),
    [
        pytest.param(_missing, "package-unavailable", id="404"),
        pytest.param(_endless, "package-too-large", id="without end"),
        pytest.param(_loop, "package-unavailable", id="redirected for ever"),
        pytest.param(_page, "malformed-package", id="a web page instead"),
    ],
)
async def test_bad_server(
    cache: PackageCache,
    make_package: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    serve: Callable[[web.Request], Awaitable[web.StreamResponse]],
    code: str,
) -> None:
    async with https_server(tmp_path, monkeypatch, serve) as url:
        with pytest.raises(EdgeclaveError) as refused:
            await cache.get(make_package().settings(package=f"{url}/small.ta"))
    assert refused.value.code == code
    assert list((tmp_path / "cache").iterdir()) == []


async def test_server_with_an_unknown_certificate(
    cache: PackageCache, make_package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with https_server(tmp_path, monkeypatch, _page) as url:
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(FetchError):
            await cache.get(make_package().settings(package=f"{url}/small.ta"))
