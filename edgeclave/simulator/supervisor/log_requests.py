"""Which lines of a log someone asks edgeAgent for, and how they are written ("Retrieve logs from IoT Edge").

`since` and `until` come first, then `loglevel` and `regex`, then `tail`. A line's level stands in front of it as syslog
has it (`<4> text`); without one it is 6. `since` and `until` are RFC 3339, seconds since 1970, or how long ago:

>>> from datetime import UTC, datetime
>>> now = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
>>> datetime.fromtimestamp(moment("1 day 2 hours", now=now), UTC).isoformat()
'2026-02-28T10:00:00+00:00'
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from edgeclave.simulator.hub_errors import bad_request
from edgeclave.simulator.supervisor.module_logs import LogLine

ALL_MODULES = "all"
DEFAULT_LEVEL = 6
MAX_PATTERN_CHARACTERS = 1024
_DURATION = re.compile(
    r"(?:(?P<days>\d{1,6})\s*d(?:ays?)?)?\s*(?:(?P<hours>\d{1,6})\s*h(?:ours?)?)?"
    r"\s*(?:(?P<minutes>\d{1,6})\s*m(?:in(?:ute)?s?)?)?\s*(?:(?P<seconds>\d{1,6})\s*s(?:ec(?:ond)?s?)?)?",
    re.IGNORECASE,
)
_SECONDS = {"days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
_LINE = re.compile(
    r"\s*(?:<(?P<level>\d)>)?\s*(?:\d{4}-\d\d-\d\d\s\d\d:\d\d:\d\d.\d{3}\s[+-]\d\d:\d\d\s)?\s*(?P<text>.*)", re.DOTALL
)


class LogFilter(msgspec.Struct, rename="camel"):
    tail: int | None = None
    since: str | int | None = None
    until: str | int | None = None
    log_level: int | None = msgspec.field(default=None, name="loglevel")
    regex: str | None = None


class LogItem(msgspec.Struct, rename="camel"):
    """`id` is a regular expression that is looked for in the modules' names, or `all`."""

    id: str
    filter: LogFilter = msgspec.field(default_factory=LogFilter)


class LogRequest(msgspec.Struct, rename="camel", kw_only=True):
    schema_version: str
    items: LogItem | list[LogItem]
    encoding: Literal["none", "gzip"] = "none"
    content_type: Literal["text", "json"] = "text"

    def wanted(self, modules: Sequence[str]) -> Mapping[str, LogFilter]:
        """The filter of each module that is asked for; of several items the first that names it.

        Raises:
            HubError: 400 for a bad expression.
        """
        found: dict[str, LogFilter] = {}
        for item in self.items if isinstance(self.items, list) else [self.items]:
            wanted = pattern(".*" if item.id.lower() == ALL_MODULES else item.id, ignore_case=True)
            for module_id in modules:
                if wanted.search(module_id):
                    found.setdefault(module_id, item.filter)
        return found

    @property
    def extension(self) -> str:
        name = "json" if self.content_type == "json" else "log"
        return f"{name}.gz" if self.encoding == "gzip" else name


def selected(lines: Iterable[LogLine], wanted: LogFilter, *, now: float) -> list[LogLine]:
    """Raises HubError 400 for a filter that cannot be read."""
    since = moment(wanted.since, now=now) if wanted.since is not None else 0.0
    until = moment(wanted.until, now=now) if wanted.until is not None else float("inf")
    found = [line for line in lines if since <= line.at <= until]
    if wanted.log_level is not None:
        found = [line for line in found if _taken_apart(line)[0] == wanted.log_level]
    if wanted.regex is not None:
        expression = pattern(wanted.regex)
        found = [line for line in found if expression.search(_taken_apart(line)[1])]
    if wanted.tail is not None:
        found = found[-wanted.tail :] if wanted.tail > 0 else []
    return found


def written(lines: Sequence[LogLine], request: LogRequest, origin: Mapping[str, str]) -> bytes:
    """`origin`: `iothub`, `device` and `id` of the module, which each line as JSON carries."""
    if request.content_type == "json":
        data = json.dumps([_as_json(line, origin) for line in lines]).encode()
    else:
        data = "\n".join(line.text for line in lines).encode()
    return gzip.compress(data) if request.encoding == "gzip" else data


def moment(text: str | int, *, now: float) -> float:
    """Seconds since 1970. Raises HubError 400."""
    text = str(text).strip()
    if text.isdecimal() and len(text) <= 12:
        return float(text)
    match = _DURATION.fullmatch(text)
    if match is not None and any(match.groups()):
        return now - sum(int(count) * _SECONDS[unit] for unit, count in match.groupdict(0).items())
    try:
        parsed = datetime.fromisoformat(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise bad_request(
            f"{text[:80]!r} is not a time",
            where="payload",
            advice="write 2026-01-31T10:00:00Z, seconds since 1970, or how long ago: 1 day 2 hours, 90m",
        ) from error


def pattern(text: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """Raises HubError 400."""
    try:
        if len(text) > MAX_PATTERN_CHARACTERS:
            raise bad_request(f"an expression has at most {MAX_PATTERN_CHARACTERS} characters", where="payload")
        return re.compile(text, re.IGNORECASE if ignore_case else 0)
    except (re.error, OverflowError, RecursionError) as error:
        raise bad_request(f"{text[:80]!r} is not a regular expression: {error}", where="payload") from error


def _taken_apart(line: LogLine) -> tuple[int, str]:
    match = _LINE.fullmatch(line.text)
    if match is None:
        return DEFAULT_LEVEL, line.text
    return int(match["level"] or DEFAULT_LEVEL), match["text"]


def _as_json(line: LogLine, origin: Mapping[str, str]) -> dict[str, Any]:
    level, text = _taken_apart(line)
    at = datetime.fromtimestamp(line.at, UTC).isoformat(timespec="seconds")
    return {**origin, "stream": "stdout", "loglevel": level, "text": text, "timestamp": at}
