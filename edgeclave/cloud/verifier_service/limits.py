"""How much one client may ask for: a token bucket for each address. For one event loop, and one replica."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CLIENTS = 10_000  # remembered; beyond, the one heard of longest ago is forgotten and begins with a full bucket
IPV6_PREFIX = 64  # what one customer gets


class RateLimit:
    """Args:
    per_second: requests on average.
    burst: requests at once after a pause.
    clock: seconds, never going back.
    """

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, client: str) -> float:
        """0 if the client may ask now; otherwise the seconds after which it may."""
        now = self._clock()
        tokens, since = self._buckets.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._per_second)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._per_second
        self._buckets[client] = (tokens if wait else tokens - 1, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return wait


def client_of(address: str) -> str:
    """Who is counted together: an IPv4 address, or the /64 of an IPv6 address; anything else as one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed), IPV6_PREFIX), strict=False))
    return str(parsed)
