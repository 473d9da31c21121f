from __future__ import annotations

import threading
import time

from edgeclave.enclave.deadline import DeadlineTicker


def test_interrupts_once_when_the_deadline_passes() -> None:
    interrupted = threading.Event()
    ticker = DeadlineTicker(interrupted.set)
    ticker.start()
    ticker.arm(0.05)
    assert interrupted.wait(20)
    assert ticker.disarm()


def test_a_call_that_ends_in_time_is_never_interrupted() -> None:
    interruptions: list[float] = []
    ticker = DeadlineTicker(lambda: interruptions.append(time.monotonic()))
    ticker.start()
    for _ in range(20):
        ticker.arm(0.5)
        time.sleep(0.001)
        assert not ticker.disarm()
    time.sleep(0.6)
    assert interruptions == []


def test_a_short_deadline_after_a_long_one_is_kept() -> None:
    interrupted = threading.Event()
    ticker = DeadlineTicker(interrupted.set)
    ticker.start()
    ticker.arm(60)
    ticker.disarm()
    ticker.arm(0.01)
    assert interrupted.wait(20)


def test_wakes_again_after_it_was_idle() -> None:
    interrupted = threading.Event()
    ticker = DeadlineTicker(interrupted.set)
    ticker.start()
    ticker.arm(0.01)
    assert interrupted.wait(20)
    ticker.disarm()
    interrupted.clear()
    time.sleep(1.2)
    ticker.arm(0.01)
    assert interrupted.wait(20)


def test_without_deadlines_nothing_is_ever_late() -> None:
    threads = threading.active_count()
    ticker = DeadlineTicker(None)
    ticker.start()
    ticker.arm(0.0)
    time.sleep(0.05)
    assert not ticker.disarm()
    assert threading.active_count() == threads
