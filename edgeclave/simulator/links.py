"""Which devices and modules are connected right now, whatever they are connected with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from edgeclave.simulator.identities import IdentityName


class Link(Protocol):
    """A live, authenticated connection of one client."""

    def subscribed(self, topic_filter: str) -> bool:
        """Whether the client asked for this kind of message."""

    def send(self, topic: str, body: bytes) -> None:
        """Sends now, at most once."""

    def disconnect(self, reason: str) -> None:
        """Ends the connection at once."""


class Links:
    """The newest connection of each client wins, as in IoT Hub."""

    def __init__(self) -> None:
        self._links: dict[IdentityName, Link] = {}
        self._changed = asyncio.Event()
        self.on_change: list[Callable[[IdentityName, bool], None]] = []

    def attach(self, name: IdentityName, link: Link) -> None:
        older = self._links.get(name)
        self._links[name] = link
        if older is not None:
            older.disconnect("another connection with the same id took over")
        self.changed()
        for listener in self.on_change:
            listener(name, True)

    def detach(self, name: IdentityName, link: Link) -> None:
        if self._links.get(name) is link:
            del self._links[name]
            self.changed()
            for listener in self.on_change:
                listener(name, False)

    def get(self, name: IdentityName) -> Link | None:
        return self._links.get(name)

    def changed(self) -> None:
        """Someone connected, left or subscribed: wakes those who wait."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def ready(
        self,
        name: IdentityName,
        topic_filter: str,
        timeout_seconds: float,
        *,
        reachable: Callable[[], bool] = lambda: True,
    ) -> Link | None:
        """The client's link once it has subscribed and is reachable, or None when the time is over."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while True:
            link = self._links.get(name)
            if link is not None and link.subscribed(topic_filter) and reachable():
                return link
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return None
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return None
