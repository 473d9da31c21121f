from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import ta_runner.calls
from ta_runner.calls import CallQueue, CallRefused
from ta_runner.delivery import Delivery
from ta_runner.metrics import RunnerMetrics
from ta_runner.store import CallKey, RunnerStore

from edgeclave.edge.link import Call
from edgeclave.edge.outbox import Outbox
from edgeclave.edge.store import StoreError
from edgeclave.enclave.messages import StartRequest
from edgeclave.errors import EnclaveError
from tests.fixtures.waiting import eventually
from tests.unit.ta_runner.standin import StandInEnclave

MakeCall = Callable[..., Call]


@pytest.fixture
def queue(store: RunnerStore, delivery: Delivery, metrics: RunnerMetrics) -> CallQueue:
    return CallQueue("small", store, delivery, metrics)


@asynccontextmanager
async def serving(queue: CallQueue) -> AsyncIterator[tuple[StandInEnclave, asyncio.Task[None]]]:
    enclave = StandInEnclave(StartRequest(slot="small", host_time=0))
    task = asyncio.create_task(queue.serve(enclave))
    try:
        yield enclave, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def refusal(queue: CallQueue, call: Call) -> CallRefused:
    with pytest.raises(CallRefused) as refused:
        await queue.call(call)
    return refused.value


@pytest.mark.parametrize("method", ["emit", "put", "read", "fail"])
async def test_repeated_call_gets_the_same_answer_and_runs_once(
    queue: CallQueue, call_message: MakeCall, method: str
) -> None:
    async with serving(queue) as (enclave, _):
        first = await queue.call(call_message(method))
        assert await queue.call(call_message(method)) == first
        assert enclave.calls == ["1"]


async def test_call_under_way_is_joined(queue: CallQueue, call_message: MakeCall) -> None:
    async with serving(queue) as (enclave, _):
        enclave.release.clear()
        both = asyncio.gather(queue.call(call_message()), queue.call(call_message()))
        await eventually(lambda: enclave.calls)
        enclave.release.set()
        first, second = await both
        assert first == second
        assert first is not second  # each gets its own request's id on the link
        assert enclave.calls == ["1"]


async def test_another_callers_id_is_another_call(queue: CallQueue, call_message: MakeCall) -> None:
    async with serving(queue):
        assert (await queue.call(call_message())).payload == "1"
        assert (await queue.call(call_message(caller="someone else"))).payload == "2"


async def test_calls_run_in_the_order_they_came(queue: CallQueue, call_message: MakeCall) -> None:
    async with serving(queue) as (enclave, _):
        await asyncio.gather(*(queue.call(call_message(call_id=str(number))) for number in range(20)))
        assert enclave.calls == [str(number) for number in range(20)]


async def test_call_goes_on_when_whoever_asked_has_gone(queue: CallQueue, call_message: MakeCall) -> None:
    async with serving(queue) as (enclave, _):
        enclave.release.clear()
        asking = asyncio.create_task(queue.call(call_message()))
        await eventually(lambda: enclave.calls)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        enclave.release.set()
        assert (await queue.call(call_message())).payload == "1"
        assert enclave.calls == ["1"]


async def test_deadline_passes_in_the_queue(queue: CallQueue, call_message: MakeCall) -> None:
    async with serving(queue) as (enclave, _):
        enclave.release.clear()
        slow = asyncio.create_task(queue.call(call_message(call_id="slow")))
        late = asyncio.create_task(refusal(queue, call_message(call_id="late", deadline_ms=20)))
        await asyncio.sleep(0.05)
        enclave.release.set()
        assert (await late).code == "deadline-exceeded"
        await slow
        assert enclave.calls == ["slow"]


async def test_full_queue_refuses(queue: CallQueue, call_message: MakeCall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ta_runner.calls, "MAX_QUEUED_CALLS", 2)
    waiting = [asyncio.create_task(queue.call(call_message(call_id=str(number)))) for number in range(2)]
    await asyncio.sleep(0)
    refused = await refusal(queue, call_message(call_id="third"))
    assert (refused.code, refused.retry_after) == ("queue-full", 1.0)
    async with serving(queue):
        await asyncio.gather(*waiting)


async def test_nobody_runs(queue: CallQueue, call_message: MakeCall) -> None:
    waiting = asyncio.create_task(refusal(queue, call_message(call_id="waiting")))
    await asyncio.sleep(0)
    queue.close(CallRefused("trusted-app-not-running", "it is not running", retry_after=3))
    assert (await waiting).code == "trusted-app-not-running"
    assert (await refusal(queue, call_message())).retry_after == 3
    queue.open()
    async with serving(queue):
        assert (await queue.call(call_message())).status == 200


async def test_enclave_that_ends_in_a_call(queue: CallQueue, call_message: MakeCall) -> None:
    async with serving(queue) as (_, task):
        refused = await refusal(queue, call_message("die"))
        assert refused.code == "enclave-ended"
        assert refused.retry_after
        with pytest.raises(EnclaveError):
            await task


async def test_finish_lets_the_call_under_way_end(queue: CallQueue, call_message: MakeCall) -> None:
    async with serving(queue) as (enclave, task):
        enclave.release.clear()
        under_way = asyncio.create_task(queue.call(call_message(call_id="under way")))
        waiting = asyncio.create_task(refusal(queue, call_message(call_id="waiting")))
        await eventually(lambda: enclave.calls)
        queue.finish(CallRefused("trusted-app-not-running", "it stops", retry_after=1))
        enclave.release.set()
        assert (await under_way).payload == "1"
        assert (await waiting).code == "trusted-app-not-running"
        await asyncio.wait_for(task, 20)


async def test_not_stored_is_not_answered(queue: CallQueue, call_message: MakeCall, store: RunnerStore) -> None:
    async with serving(queue) as (_, task):
        await queue.call(call_message(call_id="stored"))
        pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
        store.connection.execute(f"PRAGMA max_page_count={pages}")
        refused = await refusal(queue, call_message(call_id="too much", payload="x" * 1_000_000))
        assert refused.code == "not-stored"
        assert refused.retry_after
        with pytest.raises(StoreError):
            await task
    assert store.last_results("small") == {"out": b"{}"}
    assert store.answer(CallKey("small", caller_of(call_message), "too much")) is None


async def test_answer_that_the_link_cannot_carry_is_not_committed(
    queue: CallQueue, call_message: MakeCall, store: RunnerStore
) -> None:
    async with serving(queue) as (_, task):
        assert (await refusal(queue, call_message("large"))).code == "message-too-large"
        with pytest.raises(CallRefused):
            await task
    assert store.last_results("small") == {}


async def test_unacknowledged_results_bound_new_calls_and_nothing_else(
    queue: CallQueue, call_message: MakeCall, store: RunnerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ta_runner.calls, "MAX_UNACKNOWLEDGED_CALLS", 2)
    caller = caller_of(call_message)
    async with serving(queue):
        first = await queue.call(call_message(call_id="1"))
        await queue.call(call_message(call_id="2"))
        refused = await refusal(queue, call_message(call_id="3"))
        assert (refused.code, refused.retry_after) == ("results-not-acknowledged", 10.0)
        assert await queue.call(call_message(call_id="1")) == first
        assert (await queue.call(call_message(call_id="3", caller="someone else"))).status == 200
        with store.transaction():
            assert store.acknowledge("small", "a third one", ["1"]) == 0
            assert store.acknowledge("small", caller, ["1", "unknown"]) == 1
            assert store.acknowledge("small", caller, ["1"]) == 0
        assert (await queue.call(call_message(call_id="3"))).status == 200
        assert (await refusal(queue, call_message(call_id="1"))).code == "call-acknowledged"
    assert store.last_results("small") == {"out": b"{}"}


async def test_upstream_results_go_to_the_outbox_not_to_the_caller(
    queue: CallQueue, call_message: MakeCall, store: RunnerStore, outbox: Outbox
) -> None:
    async with serving(queue):
        reply = await queue.call(call_message(deliver="upstream", payload="[1]"))
        assert (reply.payload, reply.results) == ("1", ())
        assert await queue.call(call_message(deliver="upstream", payload="[1]")) == reply
    row = store.connection.execute("SELECT * FROM outbox").fetchone()
    assert (row["output"], row["body"]) == ("out", b"[1]")
    assert row["content_type"] == "application/edgeclave-result+cose"
    assert row["properties"] == b'{"edgeclave-slot":"small","edgeclave-output":"out"}'
    assert store.unacknowledged("small", caller_of(call_message)) == (0, 0)


async def test_work_between_calls_waits_its_turn(queue: CallQueue, call_message: MakeCall) -> None:
    async with serving(queue) as (enclave, task):
        enclave.release.clear()
        call = asyncio.create_task(queue.call(call_message()))
        await eventually(lambda: enclave.calls)
        evidence = asyncio.create_task(queue.between_calls(lambda e: e.evidence(b"nonce")))
        await asyncio.sleep(0.02)
        assert not evidence.done()
        enclave.release.set()
        await call
        assert await evidence == b"evidence for nonce"

        async def refuse(_: Any) -> None:
            raise EnclaveError("refused", "the enclave refused")

        with pytest.raises(EnclaveError):
            await queue.between_calls(refuse)
        assert not task.done()


async def test_remembered_answers_are_bounded(
    queue: CallQueue, call_message: MakeCall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ta_runner.calls, "MAX_REMEMBERED_ANSWERS", 2)
    async with serving(queue) as (enclave, _):
        for call_id in ("1", "2", "3", "3", "1"):
            await queue.call(call_message("read", call_id=call_id))
        assert enclave.calls == ["1", "2", "3", "1"]


def test_killed_between_commit_and_answer(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import asyncio, os, signal, sys
        from pathlib import Path
        from prometheus_client import CollectorRegistry
        from edgeclave.edge.link import Call
        from edgeclave.edge.outbox import Outbox
        from edgeclave.enclave.messages import StartRequest
        from ta_runner.calls import CallQueue
        from ta_runner.delivery import Delivery
        from ta_runner.metrics import RunnerMetrics
        from ta_runner.store import RunnerStore
        from tests.unit.ta_runner.standin import StandInEnclave

        class Killed(CallQueue):
            def _settle(self, pending, outcome):
                if os.environ["DIE"] == "yes":
                    os.kill(os.getpid(), signal.SIGKILL)
                super()._settle(pending, outcome)

        async def main():
            store = RunnerStore(Path(sys.argv[1]))
            delivery = Delivery(store, Outbox(store.connection))
            queue = Killed("small", store, delivery, RunnerMetrics(CollectorRegistry()))
            enclave = StandInEnclave(StartRequest(slot="small", host_time=0, state=b"41"))
            serving = asyncio.create_task(queue.serve(enclave))
            reply = await queue.call(
                Call(trusted_app="small", method="emit", payload="[]", call_id="1", caller="c", deadline_ms=5000)
            )
            print(reply.payload, [result.sealed for result in reply.results], enclave.calls)

        asyncio.run(main())
    """)
    root = Path(__file__).parents[3]
    path = f"{root / 'modules' / 'ta_runner'}:{root}"

    def run(die: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, str(tmp_path / "runner.sqlite")]
        environment = {"PYTHONPATH": path, "DIE": die}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)

    assert run("yes").returncode == -signal.SIGKILL
    answered = run("no")
    assert answered.stdout == "42 [b'[]'] []\n", answered.stderr


def caller_of(call_message: MakeCall) -> str:
    return call_message().caller
