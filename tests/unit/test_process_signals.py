"""Signals to a child, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import pytest

from edgeclave.process_signals import ProcessSignals

ENDED_BY_ITSELF = 7


async def child(program: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", program)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_signal_ends_a_child(number: signal.Signals) -> None:
    process = await child("import time; time.sleep(60)")
    signals = ProcessSignals(process)
    signals.send(number)
    assert await process.wait() == -number
    signals.close()


async def test_one_that_has_just_ended_keeps_its_exit_code() -> None:
    for _ in range(20):  # asyncio's own `kill` makes 255 of some of them
        process = await child(f"raise SystemExit({ENDED_BY_ITSELF})")
        signals = ProcessSignals(process)
        with contextlib.suppress(ChildProcessError):  # asyncio was quicker to take it
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222  the loop is not to hear of it
        signals.send(signal.SIGKILL)
        assert await process.wait() == ENDED_BY_ITSELF
        signals.close()


async def test_afterwards_a_signal_reaches_nobody() -> None:
    process = await child("")
    signals = ProcessSignals(process)
    await process.wait()
    signals.send(signal.SIGKILL)
    signals.close()
    signals.send(signal.SIGKILL)
    signals.close()


async def test_a_child_that_was_gone_before_is_left_alone() -> None:
    process = await child("")
    await process.wait()
    signals = ProcessSignals(process)
    signals.send(signal.SIGKILL)
    signals.close()
