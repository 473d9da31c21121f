"""Work that its caller's cancellation does not end."""

from __future__ import annotations

import asyncio

import pytest

from edgeclave.errors import EdgeclaveError
from edgeclave.uninterrupted import to_its_end


class Workshop:
    """Makes a thing when it is told to go on, or fails, and takes it back."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.made: list[str] = []
        self._failure = failure

    async def make(self) -> str:
        self.begun.set()
        await self.go_on.wait()
        if self._failure is not None:
            raise self._failure
        self.made.append("thing")
        return "thing"

    async def undo(self, thing: str) -> None:
        self.made.remove(thing)
        raise EdgeclaveError("undone", "what cannot be told to who is cancelled")


async def test_who_is_not_cancelled_gets_what_was_made() -> None:
    workshop = Workshop()
    workshop.go_on.set()
    assert await to_its_end(workshop.make(), workshop.undo) == "thing"
    assert workshop.made == ["thing"]


@pytest.mark.parametrize(("undone", "left"), [(True, []), (False, ["thing"])])
async def test_who_is_cancelled_waits_for_the_end_and_takes_back(undone: bool, left: list[str]) -> None:
    workshop = Workshop()
    waiting = asyncio.create_task(to_its_end(workshop.make(), workshop.undo if undone else None))
    await workshop.begun.wait()
    waiting.cancel()
    await asyncio.sleep(0)  # the cancellation arrives
    assert not waiting.done()
    workshop.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert workshop.made == left


@pytest.mark.parametrize("failure", [EdgeclaveError("no", "not made"), OSError("not made")])
async def test_what_fails_after_the_cancellation_stays_a_cancellation(failure: Exception) -> None:
    workshop = Workshop(failure)
    waiting = asyncio.create_task(to_its_end(workshop.make(), workshop.undo))
    await workshop.begun.wait()
    waiting.cancel()
    workshop.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_fails_is_raised() -> None:
    workshop = Workshop(OSError("not made"))
    workshop.go_on.set()
    with pytest.raises(OSError, match="not made"):
        await to_its_end(workshop.make(), workshop.undo)
