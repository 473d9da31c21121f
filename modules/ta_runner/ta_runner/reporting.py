"""Reported properties: what runs and why not, sent soon after a change, together, and only what changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from edgeclave.edge.backoff import Backoff
from edgeclave.edge.hub import HubOffline

DEBOUNCE_SECONDS = 0.3
"""Changes that come together are reported together."""

_log = structlog.get_logger(__name__)

Report = Callable[[dict[str, Any]], Awaitable[None]]


class Reporter:
    """Keeps the reported properties equal to what `describe` says."""

    def __init__(self, describe: Callable[[], dict[str, Any]], report: Report) -> None:
        self._describe = describe
        self._report = report
        self._sent: dict[str, Any] = {}
        """As the hub has it."""
        self._changed = asyncio.Event()

    def resume(self, reported: dict[str, Any]) -> None:
        """What the hub has from an earlier run, so that what is gone is removed."""
        self._sent = reported
        self._changed.set()

    def changed(self) -> None:
        """Something may have to be reported."""
        self._changed.set()

    async def run(self) -> None:
        """Reports for ever; cancel it to stop."""
        backoff = Backoff(first_seconds=1, longest_seconds=30)
        while True:
            await self._changed.wait()
            await asyncio.sleep(DEBOUNCE_SECONDS)
            self._changed.clear()
            try:
                await self.report_now()
                backoff.reset()
            except HubOffline as error:
                _log.info("report waits", reason=error.what)
                self._changed.set()
                await asyncio.sleep(backoff.next_seconds())

    async def report_now(self) -> None:
        """Sends what changed since the last report.

        Raises:
            HubOffline: not known to have been taken.
        """
        current = self._describe()
        patch = difference(self._sent, current)
        if patch:
            await self._report(patch)
            self._sent = _without_none(current)


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7396) from `old` to `new`; a None in `new` means: not there.

    >>> difference({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"c": 1, "d": None, "e": None}})
    {'a': None, 'b': {'d': None}}
    """
    patch: dict[str, Any] = {}
    for name in {**old, **new}:
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            if inner := difference(before, after):
                patch[name] = inner
        elif before != after:
            patch[name] = _without_none(after) if isinstance(after, dict) else after
    return patch


def _without_none(value: dict[str, Any]) -> dict[str, Any]:
    """As the hub keeps it."""
    return {
        name: _without_none(member) if isinstance(member, dict) else member
        for name, member in value.items()
        if member is not None
    }
