"""Packages from a registry: by digest, resumed, in nobody's way, and from the cache when the registry is away."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import ta_runner.sources
import ta_runner.trusted_app
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding
from ta_runner.delivery import Delivery
from ta_runner.instance import Host
from ta_runner.metrics import RunnerMetrics
from ta_runner.packages import FETCHES_AT_ONCE, FetchError, PackageCache
from ta_runner.reconciler import Reconciler
from ta_runner.sources import registry_folder, remote_host
from ta_runner.status import Status
from ta_runner.store import RunnerStore

from edgeclave.errors import EdgeclaveError, PackageError
from edgeclave.registry import Credentials, Reference, RegistryAccess, RegistryLimits, push_package
from edgeclave.ta.package import read_package
from tests.fixtures.certificates import Authority
from tests.fixtures.docker_registry import PASSWORD, USER, with_password
from tests.fixtures.stand_in_registry import StandInRegistry, digest_of
from tests.fixtures.waiting import eventually
from tests.unit.ta_runner.standin import StandInPlatform

CODE = b"\0asm" + bytes(500_000)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    def limits(**changes: Any) -> RegistryLimits:
        return RegistryLimits(
            stall_seconds=30, first_wait_seconds=0.01, attempts=2, longest_wait_seconds=0.1, **changes
        )

    monkeypatch.setattr(ta_runner.sources, "RegistryLimits", limits)
    monkeypatch.setattr(ta_runner.trusted_app, "FIRST_BACKOFF_SECONDS", 0.05)
    monkeypatch.setattr(ta_runner.trusted_app, "FETCH_AGAIN_SECONDS", 0.05)


@pytest.fixture
async def registry() -> AsyncIterator[StandInRegistry]:
    async with StandInRegistry().running() as registry:
        yield registry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The registry folder of the device."""
    folder = tmp_path / "registry-folder"
    folder.mkdir()
    return folder


@pytest.fixture
def cache(tmp_path: Path, folder: Path) -> PackageCache:
    return PackageCache(tmp_path / "cache", folder)


@pytest.fixture
async def reconciler(
    store: RunnerStore, delivery: Delivery, metrics: RunnerMetrics, cache: PackageCache
) -> AsyncIterator[Reconciler]:
    host = Host({"emulator": StandInPlatform()}, cache, store, delivery, metrics, changed=lambda: None)
    reconciler = Reconciler(host)
    yield reconciler
    await reconciler.stop()


def held(registry: StandInRegistry, package: Any, tag: str = "1") -> str:
    """Puts the package into the registry; returns the reference without its digest."""
    content = read_package(package.path)
    reference = registry.hold(content.wasm, content.signature, tag, content.annotations)
    assert reference.digest == package.digest
    return str(dataclasses.replace(reference, digest=None))


def code_of(package: Any) -> str:
    return digest_of(read_package(package.path).wasm)


def twin(**apps: tuple[Any, str]) -> dict[str, Any]:
    entries = {
        name: {"package": reference, "digest": package.digest, "signer": package.signer}
        for name, (package, reference) in apps.items()
    }
    return {"trustedApps": entries}


async def status(reconciler: Reconciler, state: str, code: str | None = None, name: str = "small") -> Status:
    def reached() -> bool:
        now = reconciler.statuses().get(name)
        return now is not None and (now.state, now.reason and now.reason.code) == (state, code)

    await eventually(reached, 20)
    return reconciler.statuses()[name]


def stall(part: str, release: asyncio.Event, after: int = 1000) -> Any:
    """Sends the beginning of a blob and goes on when it is released."""

    async def lie(request: web.Request) -> Any:
        if not request.path.endswith(part) or release.is_set():
            return None
        response = web.StreamResponse(headers={"Content-Length": str(len(CODE))})
        await response.prepare(request)
        await response.write(CODE[:after])
        await release.wait()
        await response.write(CODE[after:])
        return response

    return lie


def saying(status: int, **headers: str) -> Any:
    async def lie(request: web.Request) -> Any:
        return web.Response(status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return lie


async def test_pulled_once_and_the_same_file(
    registry: StandInRegistry, cache: PackageCache, make_package: Any, tmp_path: Path, folder: Path
) -> None:
    package = make_package(CODE)
    settings = package.settings(package=held(registry, package))
    fetched = await cache.get(settings)
    assert fetched.path.read_bytes() == package.path.read_bytes()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [fetched.path.name]
    asked = len(registry.asked)
    registry.lies.append(saying(500))
    assert await PackageCache(tmp_path / "cache", folder).get(settings) == fetched
    assert len(registry.asked) == asked


@pytest.mark.parametrize(
    ("change", "kind", "code"),
    [
        pytest.param({"package": "localhost:1/a:1"}, FetchError, "registry-unreachable", id="registry away"),
        pytest.param({"package": "{host}/other:1"}, FetchError, "registry-not-found", id="not there"),
        pytest.param(
            {"package": "{host}/a:1@sha256:" + "0" * 64}, PackageError, "bad-package-reference", id="two digests"
        ),
        pytest.param({"package": "plant/small:1"}, PackageError, "bad-registry-reference", id="no registry"),
        pytest.param({"package": "{host}/UPPER"}, PackageError, "bad-registry-reference", id="no reference"),
        pytest.param({"package": "oci://{host}/a"}, PackageError, "bad-package-reference", id="a scheme"),
        pytest.param({"signer": "0" * 64}, PackageError, "wrong-signer", id="another signer"),
    ],
)
async def test_refused(
    registry: StandInRegistry,
    cache: PackageCache,
    make_package: Any,
    change: dict[str, str],
    kind: type[EdgeclaveError],
    code: str,
) -> None:
    package = make_package()
    reference = held(registry, package)
    registry.manifests.pop("1")
    members = {name: value.format(host=registry.host) for name, value in change.items()}
    if "other" in members.get("package", ""):
        registry.manifests.clear()
    with pytest.raises(kind) as refused:
        await cache.get(package.settings(**{"package": reference, **members}))
    assert refused.value.code == code
    assert refused.value.advice


async def test_another_package_under_the_tag_is_never_taken(
    registry: StandInRegistry, cache: PackageCache, make_package: Any
) -> None:
    old, new = make_package(security_version=1), make_package(security_version=2)
    reference = held(registry, new)
    held(registry, old)  # the tag leads to the old one now
    assert (await cache.get(new.settings(package=reference))).path.read_bytes() == new.path.read_bytes()
    registry.manifests[new.digest] = registry.manifests[old.digest]
    cache.keep_only([])
    with pytest.raises(FetchError) as refused:
        await cache.get(new.settings(package=reference))
    assert refused.value.code == "registry-wrong-digest"


async def test_a_cached_package_that_was_damaged_is_healed(
    registry: StandInRegistry, cache: PackageCache, make_package: Any
) -> None:
    package = make_package(CODE)
    settings = package.settings(package=held(registry, package))
    path = (await cache.get(settings)).path
    path.write_bytes(path.read_bytes()[:-600] + bytes(600))
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    assert (await cache.get(settings)).path.read_bytes() == package.path.read_bytes()


async def test_private_authority_and_password_from_the_registry_folder(
    cache: PackageCache, make_package: Any, tmp_path: Path, folder: Path
) -> None:
    authority = Authority(tmp_path)
    package = make_package(CODE)
    with with_password(tmp_path / "real", authority).running() as registry:
        ca = tmp_path / "ca-elsewhere.pem"
        ca.write_bytes(authority.root.public_bytes(Encoding.PEM))
        reference = Reference.parse(f"{registry.host}/plant/small:1")
        await push_package(read_package(package.path), reference, RegistryAccess(Credentials(USER, PASSWORD), ca))
        settings = package.settings(package=str(reference))

        ca.rename(folder / "ca.pem")
        with pytest.raises(FetchError) as refused:
            await cache.get(settings)
        assert refused.value.code == "registry-login"
        secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        configuration = folder / "config.json"
        configuration.touch(0o600)
        configuration.write_text(json.dumps({"auths": {registry.host: {"auth": secret}}}))
        assert (await cache.get(settings)).path.read_bytes() == package.path.read_bytes()


async def test_one_slow_host_holds_up_no_other(
    registry: StandInRegistry, reconciler: Reconciler, make_package: Any
) -> None:
    release = asyncio.Event()
    packages = [make_package(CODE, security_version=number) for number in range(1, FETCHES_AT_ONCE + 3)]
    registry.lies.append(stall(code_of(packages[0]), release))
    async with StandInRegistry().running() as other:
        apps = {f"slow{number}": (package, held(registry, package)) for number, package in enumerate(packages)}
        quick, local = make_package(b"\0asm1"), make_package(b"\0asm22")
        reconciler.apply(twin(**apps, quick=(quick, held(other, quick)), local=(local, str(local.path))))
        await status(reconciler, "running", name="quick")
        await status(reconciler, "running", name="local")
        assert all(reconciler.statuses()[name].state == "starting" for name in apps)
        assert registry.count("GET", "manifests") == FETCHES_AT_ONCE
        release.set()
        for name in apps:
            await status(reconciler, "running", name=name)


async def test_an_upgrade_that_cannot_be_pulled_leaves_the_old_one_running_and_comes_later(
    registry: StandInRegistry, reconciler: Reconciler, make_package: Any
) -> None:
    old, new = make_package(security_version=1), make_package(CODE, security_version=2)
    reconciler.apply(twin(small=(old, held(registry, old))))
    await status(reconciler, "running")
    registry.lies.append(saying(503))
    reconciler.apply(twin(small=(new, held(registry, new, "2"))))
    running = await status(reconciler, "running", "registry-failed")
    assert running.digest == old.digest
    assert running.reported()["reason"]["advice"]
    registry.lies.clear()
    await eventually(lambda: reconciler.statuses()["small"].digest == new.digest, 20)
    assert (await status(reconciler, "running")).reason is None


async def test_the_old_one_answers_while_the_new_one_is_pulled(
    registry: StandInRegistry, reconciler: Reconciler, make_package: Any, call_message: Callable[..., Any]
) -> None:
    release = asyncio.Event()
    old, new = make_package(security_version=1), make_package(CODE, security_version=2)
    reconciler.apply(twin(small=(old, held(registry, old))))
    await status(reconciler, "running")
    registry.lies.append(stall(code_of(new), release))
    reconciler.apply(twin(small=(new, held(registry, new, "2"))))
    await eventually(lambda: registry.count("GET", "blobs") == 4)
    app = reconciler.find("small")
    assert app is not None
    assert (await app.call(call_message())).status == 200
    assert app.status.digest == old.digest
    release.set()
    await eventually(lambda: app.status.digest == new.digest, 20)


async def test_a_change_of_the_twin_ends_the_pull_and_what_came_is_kept(
    registry: StandInRegistry, reconciler: Reconciler, make_package: Any, tmp_path: Path
) -> None:
    release = asyncio.Event()
    slow, other = make_package(CODE, security_version=1), make_package(security_version=2)
    registry.lies.append(stall(code_of(slow), release))
    first = twin(small=(slow, held(registry, slow)))
    reconciler.apply(first)
    part = tmp_path / "cache" / f"{slow.digest[7:]}.partial" / code_of(slow)[7:]
    await eventually(part.exists)
    reconciler.apply(twin(small=(other, held(registry, other, "2")), keeps=(slow, "/no/such")))
    running = await status(reconciler, "running")
    assert running.digest == other.digest
    release.set()
    await eventually(lambda: part.exists() and part.stat().st_size == 1000)
    registry.asked.clear()
    reconciler.apply(first)
    await eventually(lambda: reconciler.statuses()["small"].digest == slow.digest, 20)
    ranges = [asked.headers.get("Range") for asked in registry.asked if asked.path.endswith(code_of(slow))]
    assert ranges == ["bytes=1000-"]


async def test_stopped_while_it_pulls(registry: StandInRegistry, reconciler: Reconciler, make_package: Any) -> None:
    package = make_package(CODE)
    registry.lies.append(stall(code_of(package), asyncio.Event()))
    reconciler.apply(twin(small=(package, held(registry, package))))
    await eventually(lambda: registry.count("GET", "blobs") == 2)
    async with asyncio.timeout(20):
        await reconciler.stop()


async def test_a_registry_that_asks_for_patience_is_left_alone(
    registry: StandInRegistry, reconciler: Reconciler, make_package: Any
) -> None:
    package = make_package()
    reference = held(registry, package)
    registry.lies.append(saying(429, Retry_After="600"))
    reconciler.apply(twin(small=(package, reference)))
    await status(reconciler, "backoff", "registry-busy")
    asked = len(registry.asked)
    await asyncio.sleep(0.4)
    assert len(registry.asked) == asked == 1


async def test_after_a_restart_without_a_network_it_runs_from_the_cache(
    registry: StandInRegistry, reconciler: Reconciler, make_package: Any, store: RunnerStore
) -> None:
    package = make_package(CODE)
    wish = twin(small=(package, held(registry, package)))
    reconciler.apply(wish)
    await status(reconciler, "running")
    await reconciler.stop()
    registry.lies.append(saying(500))
    asked = len(registry.asked)
    again = Reconciler(reconciler._host)
    again.apply(wish)
    await status(again, "running")
    assert len(registry.asked) == asked
    await again.stop()


async def test_the_cache_is_bounded_while_one_entry_is_refused(
    registry: StandInRegistry, reconciler: Reconciler, make_package: Any, tmp_path: Path
) -> None:
    """A wrong entry of the twin must not keep every package that ever ran."""
    for number in range(1, 6):
        package = make_package(security_version=number)
        wish = twin(small=(package, held(registry, package, str(number))))
        wish["trustedApps"]["bad"] = {"colour": "red"}
        reconciler.apply(wish)
        await eventually(lambda digest=package.digest: reconciler.statuses()["small"].digest == digest, 20)  # type: ignore[misc]
        await status(reconciler, "running")
    assert len(list((tmp_path / "cache").iterdir())) <= 2


async def test_parts_of_what_nobody_wants_any_more_are_removed(cache: PackageCache, tmp_path: Path) -> None:
    wanted, unwanted = (tmp_path / "cache" / f"{letter * 64}.partial" for letter in "ab")
    for path in (wanted, unwanted):
        path.mkdir()
        (path / "x").write_bytes(b"part")
    cache.keep_only(["sha256:" + "a" * 64])
    assert (wanted.exists(), unwanted.exists()) == (True, False)


@pytest.mark.parametrize(
    ("package", "host"),
    [
        ("r.example:5000/a:1", "r.example:5000"),
        ("https://r.example/a.ta", "r.example"),
        ("/packages/a.ta", None),
        ("file:///packages/a.ta", None),
        ("./a.ta", None),
    ],
)
def test_where_it_comes_from(package: str, host: str | None) -> None:
    assert remote_host(package) == host


@pytest.mark.parametrize(
    ("given", "folder"), [(None, "/etc/edgeclave/registry"), ("/x", "/x"), ("", "/etc/edgeclave/registry")]
)
def test_where_the_login_lies(monkeypatch: pytest.MonkeyPatch, given: str | None, folder: str) -> None:
    monkeypatch.delenv("EDGECLAVE_REGISTRY", raising=False)
    if given is not None:
        monkeypatch.setenv("EDGECLAVE_REGISTRY", given)
    assert registry_folder() == Path(folder)
