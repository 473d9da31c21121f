"""Quotas with a clock that the test turns."""

from __future__ import annotations

import asyncio

import pytest
from enclave_broker.quotas import MAX_IDLE_IDENTITIES, Limiter, QuotaError

from edgeclave.edge.twins.enclave_broker import Quotas


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def soon() -> float:
    return asyncio.get_running_loop().time() + 5


def refused(limiter: Limiter, identity: str = "a") -> QuotaError | None:
    try:
        limiter.admit(identity)
    except QuotaError as error:
        return error
    return None


def test_a_burst_then_a_rate() -> None:
    clock = Clock()
    limiter = Limiter(Quotas(requests_per_second=2, burst=3), clock)
    assert [refused(limiter) for _ in range(3)] == [None, None, None]
    error = refused(limiter)
    assert error is not None
    assert (error.code, error.status, error.retry_after) == ("too-many-requests", 429, 0.5)
    clock.now += 0.5
    assert refused(limiter) is None
    assert refused(limiter) is not None
    clock.now += 3600
    assert [refused(limiter) is None for _ in range(4)] == [True, True, True, False]


def test_callers_do_not_share_a_bucket() -> None:
    limiter = Limiter(Quotas(requests_per_second=1, burst=1), Clock())
    assert refused(limiter, "a") is None
    assert refused(limiter, "a") is not None
    assert refused(limiter, "b") is None


def test_new_quotas_count_at_once() -> None:
    limiter = Limiter(Quotas(requests_per_second=1, burst=100), Clock())
    assert refused(limiter) is None
    limiter.quotas = Quotas(requests_per_second=1, burst=1)
    assert refused(limiter) is None
    assert refused(limiter) is not None


def test_idle_callers_are_forgotten() -> None:
    clock = Clock()
    limiter = Limiter(Quotas(), clock)
    for number in range(MAX_IDLE_IDENTITIES + 10):
        limiter.admit(f"caller {number}")
        clock.now += 1
    assert len(limiter._callers) <= MAX_IDLE_IDENTITIES


async def hold(limiter: Limiter, identity: str, release: asyncio.Event, started: list[str]) -> None:
    async with limiter.slot(identity, soon()):
        started.append(identity)
        await release.wait()


async def test_in_flight_of_one_caller_is_bounded() -> None:
    limiter = Limiter(Quotas(in_flight=2))
    release, started = asyncio.Event(), list[str]()
    tasks = [asyncio.create_task(hold(limiter, "a", release, started)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(QuotaError) as caught:
        async with limiter.slot("a", soon()):
            pass
    assert (caught.value.code, caught.value.status) == ("too-many-in-flight", 429)
    async with limiter.slot("b", soon()):
        assert limiter.running == 3
    release.set()
    await asyncio.gather(*tasks)
    async with limiter.slot("a", soon()):
        assert limiter.running == 1


async def test_the_queue_is_first_come_first_served_and_bounded() -> None:
    limiter = Limiter(Quotas(total_in_flight=1, queued=3))
    release, started = asyncio.Event(), list[str]()
    tasks = [asyncio.create_task(hold(limiter, name, release, started)) for name in "abcd"]
    await asyncio.sleep(0)
    assert (started, limiter.running, limiter.waiting) == (["a"], 1, 3)
    with pytest.raises(QuotaError) as caught:
        async with limiter.slot("e", soon()):
            pass
    assert (caught.value.code, caught.value.status, caught.value.retry_after) == ("queue-full", 503, 1.0)
    release.set()
    await asyncio.gather(*tasks)
    assert started == ["a", "b", "c", "d"]
    assert (limiter.running, limiter.waiting) == (0, 0)


async def test_a_deadline_passes_in_the_queue() -> None:
    limiter = Limiter(Quotas(total_in_flight=1))
    release = asyncio.Event()
    task = asyncio.create_task(hold(limiter, "a", release, []))
    await asyncio.sleep(0)
    with pytest.raises(QuotaError) as caught:
        async with limiter.slot("b", asyncio.get_running_loop().time() + 0.02):
            pass
    assert (caught.value.code, caught.value.status, limiter.waiting) == ("queue-timeout", 503, 0)
    release.set()
    await task
    assert limiter.running == 0


@pytest.mark.parametrize("order", ["cancelled, then freed", "freed, then cancelled"])
async def test_a_waiting_caller_that_goes_away_frees_its_place(order: str) -> None:
    limiter = Limiter(Quotas(total_in_flight=1))
    release, started = asyncio.Event(), list[str]()
    first, gone, last = (asyncio.create_task(hold(limiter, name, release, started)) for name in ("a", "gone", "z"))
    await asyncio.sleep(0)
    steps = [gone.cancel, release.set]
    for step in steps if order.startswith("cancelled") else reversed(steps):
        step()
    await asyncio.gather(first, gone, last, return_exceptions=True)
    assert started == ["a", "z"]
    assert (limiter.running, limiter.waiting) == (0, 0)
    assert gone.cancelled()


async def test_slots_are_given_back_after_an_error() -> None:
    limiter = Limiter(Quotas(total_in_flight=1))
    for _ in range(3):
        with pytest.raises(ValueError, match="it"):
            async with limiter.slot("a", soon()):
                raise ValueError("it")
    assert limiter.running == 0
