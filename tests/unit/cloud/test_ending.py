"""A task of the Event Hub SDK ends even when the SDK swallows the first cancellation."""

from __future__ import annotations

import asyncio

import pytest

from edgeclave.cloud import ending
from edgeclave.cloud.ending import end


async def stubborn(swallowed: int) -> None:
    for _ in range(swallowed):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    await asyncio.Event().wait()


@pytest.mark.parametrize("swallowed", [0, 1, 3])
async def test_it_is_cancelled_until_it_has_ended(monkeypatch: pytest.MonkeyPatch, swallowed: int) -> None:
    monkeypatch.setattr(ending, "AGAIN_SECONDS", 0.01)
    task = asyncio.create_task(stubborn(swallowed))
    await asyncio.sleep(0)
    await end(task)
    assert task.cancelled()


async def test_what_it_raised_stays_with_it() -> None:
    async def failing() -> None:
        raise ValueError("no hub")

    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    await end(task)
    with pytest.raises(ValueError, match="no hub"):
        task.result()
