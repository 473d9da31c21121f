from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ta_runner.trusted_app
from ta_runner.calls import CallRefused
from ta_runner.delivery import Delivery
from ta_runner.instance import Host
from ta_runner.link_server import RequestHandler
from ta_runner.metrics import RunnerMetrics
from ta_runner.packages import PackageCache
from ta_runner.reconciler import Reconciler
from ta_runner.status import Status
from ta_runner.store import RunnerStore

from edgeclave.edge.link import Call
from edgeclave.errors import EnclaveError
from tests.fixtures.waiting import eventually
from tests.unit.ta_runner.standin import StandInPlatform

MakeCall = Callable[..., Call]


@pytest.fixture
def platform() -> StandInPlatform:
    return StandInPlatform()


@pytest.fixture
async def reconciler(
    platform: StandInPlatform,
    store: RunnerStore,
    delivery: Delivery,
    metrics: RunnerMetrics,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Reconciler]:
    monkeypatch.setattr(ta_runner.trusted_app, "FIRST_BACKOFF_SECONDS", 0.05)
    monkeypatch.setattr(ta_runner.trusted_app, "FETCH_AGAIN_SECONDS", 0.05)
    packages = PackageCache(tmp_path / "cache")
    reconciler = Reconciler(Host({"emulator": platform}, packages, store, delivery, metrics, changed=lambda: None))
    yield reconciler
    await reconciler.stop()


def entry(built: Any, **changes: Any) -> dict[str, Any]:
    return {"package": str(built.path), "digest": built.digest, "signer": built.signer, **changes}


def twin(**trusted_apps: Any) -> dict[str, Any]:
    return {"trustedApps": trusted_apps}


async def status(reconciler: Reconciler, state: str, code: str | None = None, name: str = "small") -> Status:
    def reached() -> bool:
        now = reconciler.statuses().get(name)
        return now is not None and (now.state, now.reason and now.reason.code) == (state, code)

    await eventually(reached)
    return reconciler.statuses()[name]


def kinds(store: RunnerStore) -> list[str]:
    rows = store.connection.execute("SELECT content_type FROM outbox ORDER BY id")
    return [row[0].removeprefix("application/edgeclave-").partition("+")[0] for row in rows]


@pytest.mark.parametrize(
    ("given", "code", "again"),
    [
        pytest.param(None, "trusted-app-not-running", True, id="before the twin is read"),
        pytest.param({"trustedApps": 1}, "trusted-app-not-running", True, id="while the twin is wrong as a whole"),
        pytest.param({"trustedApps": {}}, "unknown-trusted-app", False, id="when the twin does not name it"),
    ],
)
async def test_a_caller_is_told_whether_to_come_again(
    reconciler: Reconciler, store: RunnerStore, call_message: MakeCall, given: Any, code: str, again: bool
) -> None:
    if given is not None:
        reconciler.apply(given)
    with pytest.raises(CallRefused) as refused:
        await RequestHandler(reconciler, store)(call_message())
    assert (refused.value.code, refused.value.retry_after is not None) == (code, again)


async def test_upgrade_closes_the_old_and_goes_on_with_its_state(
    reconciler: Reconciler, platform: StandInPlatform, store: RunnerStore, make_package: Any, call_message: MakeCall
) -> None:
    old, new = make_package(security_version=1), make_package(security_version=2)
    reconciler.apply(twin(small=entry(old)))
    await status(reconciler, "running")
    app = reconciler.find("small")
    assert app is not None
    await app.call(call_message())
    reconciler.apply(twin(small=entry(new)))
    await eventually(lambda: app.status.digest == new.digest and app.status.state == "running")
    assert kinds(store) == ["evidence", "open", "close", "evidence", "open"]
    assert (await app.call(call_message(call_id="2"))).payload == "2"
    assert app.status.restarts == 0


async def test_refused_upgrade_goes_back_to_the_old_package(
    reconciler: Reconciler, platform: StandInPlatform, store: RunnerStore, make_package: Any, call_message: MakeCall
) -> None:
    old, bad, good = (make_package(security_version=number) for number in (1, 2, 3))
    platform.refusals[bad.digest.removeprefix("sha256:")] = EnclaveError("state-too-new", "sealed by a newer version")
    reconciler.apply(twin(small=entry(old)))
    await status(reconciler, "running")
    reconciler.apply(twin(small=entry(bad)))
    back = await status(reconciler, "running", "state-too-new")
    assert back.digest == old.digest
    app = reconciler.find("small")
    assert app is not None
    assert (await app.call(call_message())).status == 200

    platform.enclaves[-1].end("it crashed")  # the refused one is not tried again
    await eventually(lambda: len(platform.enclaves) == 3)
    assert (await status(reconciler, "running", "state-too-new")).digest == old.digest

    reconciler.apply(twin(small=entry(good)))
    await eventually(lambda: app.status.digest == good.digest)
    await status(reconciler, "running")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({"signer": "0" * 64}, "wrong-signer", id="wrong signer"),
        pytest.param({"digest": "sha256:" + "0" * 64}, "wrong-digest", id="wrong digest"),
        pytest.param({"colour": "red"}, "bad-trusted-app", id="unknown field"),
        pytest.param({"platform": "sgx"}, "unknown-platform", id="unknown platform"),
    ],
)
async def test_wrong_upgrade_never_stops_the_old(
    reconciler: Reconciler, platform: StandInPlatform, make_package: Any, change: dict[str, str], code: str
) -> None:
    package = make_package()
    reconciler.apply(twin(small=entry(package)))
    await status(reconciler, "running")
    reconciler.apply(twin(small=entry(package, **change)))
    await status(reconciler, "running", code)
    reconciler.apply(twin(small=entry(package)))
    await status(reconciler, "running")
    assert len(platform.enclaves) == 1
    assert not platform.enclaves[0].ended.done()


async def test_beacons_are_answered_whatever_becomes_of_an_upgrade(
    reconciler: Reconciler, platform: StandInPlatform, store: RunnerStore, make_package: Any, tmp_path: Path
) -> None:
    old, new = make_package(security_version=1), make_package(security_version=2)
    reconciler.apply(twin(small=entry(old)) | {"beacon": "AQ"})
    await status(reconciler, "running")
    reconciler.apply(twin(small=entry(new, package=str(tmp_path / "nowhere.ta"))) | {"beacon": "Ag"})
    await status(reconciler, "running", "package-unavailable")
    reconciler.apply(twin(small=entry(new, package=str(tmp_path / "nowhere.ta"))) | {"beacon": "Aw"})
    await eventually(lambda: platform.enclaves[0].beacons == [b"\2", b"\3"])
    assert len(platform.enclaves) == 1
    assert kinds(store).count("result") == 2, "a heartbeat each"


async def test_upgrade_that_cannot_be_fetched_yet_is_tried_again(
    reconciler: Reconciler, platform: StandInPlatform, make_package: Any, tmp_path: Path
) -> None:
    old, new = make_package(security_version=1), make_package(security_version=2)
    later = tmp_path / "later.ta"
    reconciler.apply(twin(small=entry(old)))
    await status(reconciler, "running")
    reconciler.apply(twin(small=entry(new, package=str(later))))
    await status(reconciler, "running", "package-unavailable")
    new.path.rename(later)
    await eventually(lambda: len(platform.enclaves) == 2)
    assert (await status(reconciler, "running")).digest == new.digest


async def test_crashes_are_counted_and_backed_off(
    reconciler: Reconciler, platform: StandInPlatform, make_package: Any, call_message: MakeCall
) -> None:
    reconciler.apply(twin(small=entry(make_package())))
    app = reconciler.find("small")
    assert app is not None
    for crashes in range(1, 4):
        await eventually(lambda: app.status.state == "running")
        platform.enclaves[-1].end("it crashed")
        await status(reconciler, "backoff", "enclave-ended")
        with pytest.raises(CallRefused) as refused:
            await app.call(call_message(call_id=str(crashes)))
        assert refused.value.code == "trusted-app-not-running"
        assert refused.value.retry_after
        assert app.status.restarts == crashes
    assert (await status(reconciler, "running")).reason is None


async def test_lost_commit_ends_the_enclave_and_goes_on_from_the_stored_state(
    reconciler: Reconciler, platform: StandInPlatform, store: RunnerStore, make_package: Any, call_message: MakeCall
) -> None:
    reconciler.apply(twin(small=entry(make_package())))
    await status(reconciler, "running")
    app = reconciler.find("small")
    assert app is not None
    await app.call(call_message())
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    store.connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(CallRefused, match="not-stored"):
        await app.call(call_message(call_id="2", payload="x" * 1_000_000))
    store.connection.execute("PRAGMA max_page_count=1000000")
    await eventually(lambda: len(platform.enclaves) == 2)
    assert platform.enclaves[1].count == 1
    await status(reconciler, "running")
    assert (await app.call(call_message(call_id="2"))).payload == "2"


async def test_recipients_change_without_a_new_enclave(
    reconciler: Reconciler, platform: StandInPlatform, store: RunnerStore, make_package: Any
) -> None:
    package = make_package()
    reconciler.apply(twin(small=entry(package, recipients={"out": "AQ"})))
    await status(reconciler, "running")
    reconciler.apply(twin(small=entry(package, recipients={"out": "Ag"})))
    await eventually(lambda: platform.enclaves[0].recipients == {"out": b"\x02"})
    reconciler.apply(twin(small=entry(package, recipients={"out": "AA"})))
    await status(reconciler, "running", "bad-recipient-set")
    assert len(platform.enclaves) == 1
    slot = store.slot("small")
    assert slot is not None
    assert (slot.state, slot.settings and slot.settings.recipients) == (b"7", {"out": "Ag"})


async def test_one_that_hangs_at_its_start_keeps_no_other_waiting(
    reconciler: Reconciler, platform: StandInPlatform, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = make_package(security_version=1), make_package(security_version=2)
    start = platform.start

    async def hang(package: Path, request: Any, keeper: Any = None) -> Any:
        if request.slot == "slow":
            await asyncio.Event().wait()
        return await start(package, request, keeper)

    monkeypatch.setattr(platform, "start", hang)
    reconciler.apply(twin(slow=entry(slow), quick=entry(quick)))
    await status(reconciler, "running", name="quick")
    await status(reconciler, "starting", name="slow")


async def test_broken_entry_after_a_restart_of_the_module_runs_what_ran_before(
    platform: StandInPlatform, reconciler: Reconciler, make_package: Any
) -> None:
    package = make_package()
    reconciler.apply(twin(small=entry(package)))
    await status(reconciler, "running")
    await reconciler.stop()
    again = Reconciler(reconciler._host)
    again.apply(twin(small=entry(package, colour="red")))
    await status(again, "running", "bad-trusted-app")
    again.apply(twin())
    await status(again, "stopped")
    again.apply(twin(small=entry(package, colour="red")))
    await status(again, "failed", "bad-trusted-app")
    await again.stop()


async def test_removed_before_it_ever_ran_leaves_nothing(reconciler: Reconciler, make_package: Any) -> None:
    reconciler.apply(twin(small=entry(make_package(), package="/no/such", digest="sha256:" + "0" * 64)))
    await status(reconciler, "backoff", "package-unavailable")
    reconciler.apply(twin())
    assert reconciler.statuses() == {}


async def test_packages_nobody_can_go_back_to_are_removed(
    reconciler: Reconciler, store: RunnerStore, make_package: Any, tmp_path: Path
) -> None:
    packages = [make_package(security_version=number) for number in (1, 2, 3)]

    def runs(package: Any) -> bool:
        return bool(reconciler.statuses()["small"].digest == package.digest)

    for package in packages:
        reconciler.apply(twin(small=entry(package)))
        await eventually(partial(runs, package))
    reconciler.apply(twin(small=entry(packages[2]), other=entry(packages[2])))
    assert [path.stem for path in (tmp_path / "cache").iterdir()] == [packages[2].digest.removeprefix("sha256:")]
