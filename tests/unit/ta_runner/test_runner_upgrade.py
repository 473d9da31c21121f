"""What runs goes on until the wished version is fetched and compiled, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import ta_runner.trusted_app
from ta_runner.delivery import Delivery
from ta_runner.instance import Host
from ta_runner.metrics import RunnerMetrics
from ta_runner.packages import PackageCache
from ta_runner.reconciler import Reconciler
from ta_runner.store import RunnerStore

from edgeclave.errors import EnclaveError, PackageError
from tests.fixtures.waiting import eventually
from tests.unit.ta_runner.standin import StandInPlatform


class Runner:
    """One slot of a runner; `restart` is what a kill and a new start of the module leave of it."""

    def __init__(self, host: Host, platform: StandInPlatform) -> None:
        self.platform = platform
        self._host = host
        self.reconciler = Reconciler(host)
        self._wish: dict[str, Any] = {}

    def wish(self, package: Any) -> None:
        entry = {"package": str(package.path), "digest": package.digest, "signer": package.signer}
        self._wish = {"trustedApps": {"small": entry}}
        self.reconciler.apply(self._wish)

    async def runs(self, package: Any, code: str | None = None) -> None:
        def reached() -> bool:
            now = self.reconciler.statuses()["small"]
            return (now.state, now.digest, now.reason and now.reason.code) == ("running", package.digest, code)

        await eventually(reached)

    async def compiles(self, package: Any, times: int = 1) -> None:
        await eventually(lambda: self.platform.compiling.count(stem(package)) == times)

    async def restart(self) -> None:
        await self.reconciler.stop()
        self.reconciler = Reconciler(self._host)
        self.reconciler.apply(self._wish)

    async def call(self, message: Any) -> str | None:
        app = self.reconciler.find("small")
        assert app is not None
        return (await app.call(message)).payload


@pytest.fixture
async def runner(
    store: RunnerStore, delivery: Delivery, metrics: RunnerMetrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Runner]:
    monkeypatch.setattr(ta_runner.trusted_app, "FIRST_BACKOFF_SECONDS", 0.05)
    monkeypatch.setattr(ta_runner.trusted_app, "FETCH_AGAIN_SECONDS", 0.05)
    platform = StandInPlatform()
    packages = PackageCache(tmp_path / "cache")
    runner = Runner(Host({"emulator": platform}, packages, store, delivery, metrics, changed=lambda: None), platform)
    yield runner
    await runner.reconciler.stop()


@pytest.fixture
async def upgrading(runner: Runner, make_package: Any) -> tuple[Any, Any]:
    """The old version, which runs, and the new one, whose code is being compiled."""
    old, new = make_package(security_version=1), make_package(security_version=2)
    runner.wish(old)
    await runner.runs(old)
    runner.platform.may_compile.clear()
    runner.wish(new)
    await runner.compiles(new)
    return old, new


def stem(package: Any) -> str:
    return str(package.digest.removeprefix("sha256:"))


async def test_the_old_one_answers_until_the_new_one_is_compiled(
    runner: Runner, upgrading: tuple[Any, Any], call_message: Callable[..., Any]
) -> None:
    old, new = upgrading
    for number in (1, 2, 3):
        assert await runner.call(call_message(call_id=str(number))) == str(number)
    await runner.runs(old)
    assert runner.platform.packages == [stem(old)], "no second instance beside it"
    runner.platform.may_compile.set()
    await runner.runs(new)
    assert await runner.call(call_message(call_id="4")) == "4"
    assert runner.platform.packages == [stem(old), stem(new)]
    assert runner.platform.compiling == [stem(new)], "what runs first or again is compiled by its start"


async def test_what_does_not_compile_never_stops_the_old_one(runner: Runner, upgrading: tuple[Any, Any]) -> None:
    old, new = upgrading
    runner.platform.flaws[stem(new)] = PackageError("wasm-refused", "not a component")
    runner.platform.may_compile.set()
    await runner.runs(old, "wasm-refused")
    assert not runner.platform.enclaves[0].ended.done()
    assert len(runner.platform.enclaves) == 1


async def test_a_compiler_that_was_killed_is_started_again(runner: Runner, upgrading: tuple[Any, Any]) -> None:
    old, new = upgrading
    runner.platform.flaws[stem(new)] = EnclaveError("enclave-ended", "killed")
    runner.platform.may_compile.set()
    await runner.runs(old, "enclave-ended")
    del runner.platform.flaws[stem(new)]
    await runner.runs(new)
    assert runner.platform.packages == [stem(old), stem(new)]


async def test_what_compiles_and_then_ends_at_its_start_is_not_tried_again(
    runner: Runner, upgrading: tuple[Any, Any]
) -> None:
    old, new = upgrading
    runner.platform.refusals[stem(new)] = EnclaveError("enclave-ended", "it ended")
    runner.platform.may_compile.set()
    await runner.runs(old, "enclave-ended")
    del runner.platform.refusals[stem(new)]
    runner.platform.enclaves[-1].end("it crashed")
    await eventually(lambda: len(runner.platform.enclaves) == 3)
    await runner.runs(old, "enclave-ended")
    assert runner.platform.packages == [stem(old)] * 3


async def test_an_old_one_that_ends_meanwhile_is_started_again_and_compiling_goes_on(
    runner: Runner, upgrading: tuple[Any, Any], call_message: Callable[..., Any]
) -> None:
    old, new = upgrading
    for crashes in (1, 2):
        runner.platform.enclaves[-1].end("it crashed")
        await eventually(lambda crashes=crashes: len(runner.platform.enclaves) == crashes + 1)  # type: ignore[misc]
        await runner.runs(old)
    assert await runner.call(call_message()) == "1"
    runner.platform.may_compile.set()
    await runner.runs(new)
    assert runner.platform.compiling == [stem(new)]


async def test_a_module_that_is_restarted_meanwhile_runs_the_old_one(
    runner: Runner, upgrading: tuple[Any, Any], call_message: Callable[..., Any]
) -> None:
    old, new = upgrading
    await runner.restart()
    await runner.runs(old)
    await runner.compiles(new, times=2)
    assert await runner.call(call_message()) == "1"
    runner.platform.may_compile.set()
    await runner.runs(new)
    assert runner.platform.packages == [stem(old), stem(old), stem(new)]


async def test_an_old_one_that_no_longer_starts_is_in_nobodys_way(runner: Runner, upgrading: tuple[Any, Any]) -> None:
    old, new = upgrading
    runner.platform.refusals[stem(old)] = EnclaveError("runtime-changed", "it does not start on this release")
    await runner.restart()
    await runner.runs(new)


async def test_a_new_wish_ends_the_compiling_of_the_former(
    runner: Runner, upgrading: tuple[Any, Any], make_package: Any
) -> None:
    old, new = upgrading
    newer = make_package(security_version=3)
    runner.wish(newer)
    await runner.compiles(newer)
    assert runner.platform.given_up == [stem(new)]
    runner.wish(old)
    await eventually(lambda: runner.platform.given_up == [stem(new), stem(newer)])
    await runner.runs(old)
    assert len(runner.platform.enclaves) == 1
