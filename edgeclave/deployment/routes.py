"""edgeHub routes: `FROM <source> [WHERE <condition>] INTO $upstream | BrokeredEndpoint("/modules/<m>/inputs/<i>")`.

Rules, as edgeHub has them:

1. A source matches what begins with its names, in any case, after its trailing `*` and `/` are dropped; a `*` between
   slashes stands for one name.
2. A message goes to every route that matches, once to each.
3. priority 0 is delivered first, 9 last; without one a route is last. timeToLiveSecs 0 or missing means the
   storeAndForwardConfiguration's.

>>> route = parse_route("up", 'FROM /messages/modules/a/outputs/* INTO BrokeredEndpoint("/modules/b/inputs/i")')
>>> route.sink
Input(module_id='b', input_name='i')
>>> route.matches("/messages/modules/A/outputs/alerts", lambda name: None)
True
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from edgeclave.deployment.conditions import ROUTES, Condition, Resolver, parse
from edgeclave.errors import ConfigurationError

LOWEST_PRIORITY = 9
MAX_TIME_TO_LIVE_SECONDS = 4294967295
DEFAULT_TIME_TO_LIVE_SECONDS = 7200
_FORM = "FROM /messages/modules/<module>/outputs/* INTO $upstream"
_ROUTE = re.compile(
    r"\s*(?:SELECT\s+\*\s+)?FROM\s+(?P<source>\S+)(?:\s+WHERE\s+(?P<condition>.+))?\s+INTO\s+(?P<sink>\S.*?)\s*",
    re.IGNORECASE | re.DOTALL,
)
_ENDPOINT = re.compile(
    r"BrokeredEndpoint\(\s*(?P<quote>[\"'])/modules/(?P<module>[^/\"']+)/inputs/(?P<input>[^/\"']+)(?P=quote)\s*\)",
    re.IGNORECASE,
)
_NAME = re.compile(r"[^.$# ]+")


@dataclass(frozen=True)
class Upstream:
    """To IoT Hub."""


@dataclass(frozen=True)
class Input:
    """To an input of a module on the same device."""

    module_id: str
    input_name: str


@dataclass(frozen=True)
class Route:
    """One parsed route."""

    name: str
    source: re.Pattern[str]
    condition: Condition | None
    sink: Upstream | Input
    priority: int
    time_to_live_seconds: int
    source_text: str

    def matches(self, source: str, resolve: Resolver) -> bool:
        if self.source.match(source) is None:
            return False
        return self.condition is None or self.condition.matches(resolve)


class _RouteSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    route: str
    priority: int = LOWEST_PRIORITY
    time_to_live_secs: int = 0


def parse_routes(desired: Mapping[str, object], *, where: str = "$edgeHub") -> list[Route]:
    """All routes of $edgeHub's desired properties.

    Raises:
        ConfigurationError: `bad-route` or `bad-condition`, naming the route, and where in it the condition is wrong.
    """
    default_ttl = default_time_to_live(desired, where)
    routes = desired.get("routes", {})
    if not isinstance(routes, dict):
        raise _bad("routes must be an object of named routes", where)
    parsed = []
    for name, value in routes.items():
        parsed.append(parse_entry(name, value, default_ttl, f"{where}.routes.{name}"))
    return parsed


def parse_route(
    name: str,
    text: str,
    *,
    priority: int = LOWEST_PRIORITY,
    time_to_live_seconds: int = DEFAULT_TIME_TO_LIVE_SECONDS,
    where: str = "",
) -> Route:
    """Raises ConfigurationError `bad-route` or `bad-condition`, the latter with the column in `text`."""
    match = _ROUTE.fullmatch(text)
    if match is None:
        raise _bad(f"{text[:120]!r} is not a route", where, advice=f"write it as {_FORM}")
    written, column = match["condition"], match.start("condition") + 1
    condition = parse(written, ROUTES, where=where, first_column=column) if written else None
    source, sink = _source(match["source"], where), _sink(match["sink"], where)
    return Route(name, source, condition, sink, priority, time_to_live_seconds, match["source"])


def parse_entry(name: str, value: object, default_ttl: int, where: str) -> Route:
    """One route as it stands in the twin: its text, or an object with it.

    Raises:
        ConfigurationError: `bad-route` or `bad-condition`.
    """
    check_name(name, where)
    try:
        settings = _RouteSettings(value) if isinstance(value, str) else msgspec.convert(value, _RouteSettings)
    except msgspec.ValidationError as error:
        raise _bad(
            f"a route is a text or {{route, priority, timeToLiveSecs}}: {error}", where, advice=f"write it as {_FORM}"
        ) from error
    if not 0 <= settings.priority <= LOWEST_PRIORITY:
        raise _bad(f"priority {settings.priority} is not 0 to {LOWEST_PRIORITY}", where)
    if not 0 <= settings.time_to_live_secs <= MAX_TIME_TO_LIVE_SECONDS:
        raise _bad(f"timeToLiveSecs {settings.time_to_live_secs} is not 0 to {MAX_TIME_TO_LIVE_SECONDS}", where)
    return parse_route(
        name,
        settings.route,
        priority=settings.priority,
        time_to_live_seconds=settings.time_to_live_secs or default_ttl,
        where=where,
    )


def check_name(name: str, where: str) -> None:
    """Raises ConfigurationError `bad-route`."""
    if not _NAME.fullmatch(name):
        raise _bad("a route's name has no dots, $, # or spaces", where)


def default_time_to_live(desired: Mapping[str, object], where: str) -> int:
    """Seconds that messages are kept where a route does not say. Raises ConfigurationError `bad-route`."""
    settings = desired.get("storeAndForwardConfiguration", {})
    value = settings.get("timeToLiveSecs", DEFAULT_TIME_TO_LIVE_SECONDS) if isinstance(settings, dict) else None
    if type(value) is not int or value > MAX_TIME_TO_LIVE_SECONDS:
        raise _bad("timeToLiveSecs must be a number of seconds", f"{where}.storeAndForwardConfiguration")
    return value if value >= 0 else MAX_TIME_TO_LIVE_SECONDS  # edgeHub: negative means for ever


def _source(text: str, where: str) -> re.Pattern[str]:
    if not text.startswith("/"):
        raise _bad(f"the source {text[:80]!r} does not start with /", where, advice=f"write it as {_FORM}")
    prefix = text.rstrip("*").rstrip("/")
    parts = ("[^/]+" if part == "*" else re.escape(part) for part in prefix.split("/"))
    return re.compile("/".join(parts) + r"(?:/|\Z)", re.IGNORECASE)


def _sink(text: str, where: str) -> Upstream | Input:
    if text.lower() == "$upstream":
        return Upstream()
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        raise _bad(
            f"{text[:120]!r} is not a place to send to",
            where,
            advice='INTO $upstream, or INTO BrokeredEndpoint("/modules/<module>/inputs/<input>")',
        )
    return Input(match["module"], match["input"])


def _bad(what: str, where: str, *, advice: str = "") -> ConfigurationError:
    return ConfigurationError("bad-route", what, where=where, advice=advice)
