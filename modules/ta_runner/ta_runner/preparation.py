"""What a version needs before it starts: its package, and, while another one runs, its code compiled into the cache.

Compiling ahead knows neither slot nor state, so that there is never a second enclave that could write them. It goes on
by itself while what runs ends and is started again, and leaves nothing but what any start may find: so it may end
anywhere.
"""

from __future__ import annotations

import asyncio

from edgeclave.edge.twins.trusted_apps import TrustedAppSettings
from ta_runner.instance import Host
from ta_runner.packages import CachedPackage


class Preparation:
    """Of one trusted application, and of one wish until `give_up`."""

    def __init__(self, name: str, host: Host) -> None:
        self._name = name
        self._host = host
        self._fetching: asyncio.Task[CachedPackage] | None = None
        self._preparing: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the wish can be started at once."""
        task = self._preparing
        return task is not None and task.done() and not task.cancelled() and task.exception() is None

    async def fetch(self, settings: TrustedAppSettings) -> CachedPackage | None:
        """The package; None when the wish changes meanwhile.

        Raises:
            EdgeclaveError: why it cannot be fetched or verified.
        """
        self._host.platform(settings)
        self._fetching = asyncio.create_task(self._host.packages.get(settings))
        try:
            await asyncio.wait({self._fetching})
            return None if self._fetching.cancelled() else self._fetching.result()
        finally:
            self._fetching.cancel()

    async def get_ready(self, wish: TrustedAppSettings) -> bool:
        """True once it can be started at once; False when the wish changes meanwhile.

        Raises:
            EdgeclaveError: why it cannot be fetched, verified or compiled; the next time it begins anew.
        """
        task = self._preparing = self._preparing or asyncio.create_task(self._prepare(wish))
        await asyncio.wait({task})  # which goes on when this is cancelled
        if task is not self._preparing:
            return False
        if not self.ready:
            self._preparing = None
        task.result()
        return True

    def give_up(self) -> None:
        """The wish has changed."""
        if self._fetching is not None:
            self._fetching.cancel()
        if self._preparing is not None:
            self._preparing.cancel()
            self._preparing.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody asks any more
            self._preparing = None

    async def _prepare(self, wish: TrustedAppSettings) -> None:
        platform = self._host.platform(wish)
        package = await self._host.packages.get(wish)
        await platform.compile(package.path, self._name)
