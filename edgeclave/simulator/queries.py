"""IoT Hub's query language over twins, in the forms people use.

    SELECT [TOP number] * | item {, item} FROM devices | devices.modules
        [WHERE condition] [GROUP BY property {, property}]
    item = property [AS name] | COUNT() [AS name] | SUM|AVG|MIN|MAX(property) [AS name]

>>> twins = [{"deviceId": "a", "tags": {"floor": 1}}, {"deviceId": "b", "tags": {"floor": 2}}]
>>> parse_query("SELECT deviceId FROM devices WHERE tags.floor > 1").run(twins)
[{'deviceId': 'b'}]
>>> parse_query("SELECT COUNT() AS n FROM devices").run(twins)
[{'n': 2}]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from edgeclave.deployment.conditions import TWINS, Condition, parse
from edgeclave.errors import ConfigurationError
from edgeclave.simulator.hub_errors import bad_request

MAX_QUERY_CHARACTERS = 8192
MAX_ITEMS = 32
TwinView = dict[str, Any]
Source = Literal["devices", "devices.modules"]

_QUERY = re.compile(
    r"\s*SELECT\s+(?:TOP\s+(?P<most>\d{1,9})\s+)?(?P<items>.+?)\s+FROM\s+(?P<source>devices\.modules|devices)"
    r"(?:\s+WHERE\s+(?P<condition>.+?))?(?:\s+GROUP\s+BY\s+(?P<groups>.+?))?\s*;?\s*",
    re.IGNORECASE | re.DOTALL,
)
_PROPERTY = r"[$A-Za-z_][\w$\-]*(?:\.[\w$\-]+|\['[^']+'\])*"
_ITEM = re.compile(
    rf"\s*(?:(?P<function>COUNT|SUM|AVG|MIN|MAX)\s*\(\s*(?P<argument>{_PROPERTY})?\s*\)|(?P<property>{_PROPERTY}))"
    r"(?:\s+AS\s+(?P<name>[A-Za-z_]\w*))?\s*",
    re.IGNORECASE,
)
_ESCAPED = re.compile(r"\.?\[\[([^\[\]']+)\]\]")  # configurations.[[id]].status
_PART = re.compile(r"\['([^']+)'\]|([^.\[\]]+)")
_AGGREGATES: dict[str, Callable[[Sequence[float]], Any]] = {
    "sum": sum,
    "avg": lambda numbers: sum(numbers) / len(numbers) if numbers else None,
    "min": lambda numbers: min(numbers, default=None),
    "max": lambda numbers: max(numbers, default=None),
}


@dataclass(frozen=True)
class _Item:
    """One column: a property, or an aggregate of one (`function` in lower case)."""

    name: str
    path: str
    function: str = ""

    def of(self, rows: Sequence[TwinView]) -> Any:
        if not self.function:
            return lookup(rows[0], self.path) if rows else None
        if self.function == "count":
            return len(rows)
        values = [lookup(row, self.path) for row in rows]
        return _AGGREGATES[self.function]([value for value in values if _is_number(value)])


@dataclass(frozen=True)
class Query:
    """A parsed query; no items means `*`, `most` is how many rows at most."""

    source: Source
    condition: Condition | None
    items: tuple[_Item, ...]
    groups: tuple[str, ...]
    most: int | None = None

    @property
    def item_type(self) -> str:
        """The x-ms-item-type of the answer."""
        return "Raw" if self.items else "Twin"

    def run(self, twins: Iterable[TwinView]) -> list[TwinView]:
        """The answer's rows, all pages together."""
        return self._rows(twins)[: self.most]

    def _rows(self, twins: Iterable[TwinView]) -> list[TwinView]:
        found = [twin for twin in twins if self.condition is None or self.condition.matches(partial(lookup, twin))]
        if not self.items:
            return found
        if not self.groups and not any(item.function for item in self.items):
            return [self._row([twin]) for twin in found]
        if not self.groups:
            return [self._row(found)]
        grouped: dict[str, list[TwinView]] = {}
        for twin in found:
            grouped.setdefault(repr([lookup(twin, path) for path in self.groups]), []).append(twin)
        return [self._row(rows) for rows in grouped.values()]

    def _row(self, rows: Sequence[TwinView]) -> TwinView:
        cells = {item.name: item.of(rows) for item in self.items}
        return {name: value for name, value in cells.items() if value is not None}


def parse_query(text: str) -> Query:
    """Raises HubError 400 that names the offending part."""
    match = _QUERY.fullmatch(_without_escapes(text)) if len(text) <= MAX_QUERY_CHARACTERS else None
    if match is None:
        raise bad_request(
            f"the simulator does not know the query {text[:120]!r}",
            advice="it knows SELECT * or properties and COUNT() FROM devices or devices.modules"
            " [WHERE condition] [GROUP BY properties]",
        )
    groups = tuple(part.strip() for part in match["groups"].split(",")) if match["groups"] else ()
    items = () if match["items"].strip() == "*" else tuple(_items(match["items"]))
    for path in groups:
        if not re.fullmatch(_PROPERTY, path):
            raise bad_request(f"{path[:80]!r} is not a property", where="GROUP BY")
    if (groups or any(item.function for item in items)) and any(
        not item.function and item.path not in groups for item in items
    ):
        raise bad_request("a property beside an aggregate must stand in GROUP BY", where="SELECT")
    source: Source = "devices.modules" if match["source"].lower() == "devices.modules" else "devices"
    condition = parse_condition(match["condition"]) if match["condition"] else None
    return Query(source, condition, items, groups, None if match["most"] is None else int(match["most"]))


def parse_condition(text: str, *, where: str = "WHERE") -> Condition:
    """A condition over twins.

    Raises:
        HubError: 400.
    """
    try:
        return parse(_without_escapes(text), TWINS, where=where)
    except ConfigurationError as error:
        raise bad_request(error.what, where=error.where, advice=error.advice) from error


def lookup(twin: TwinView, path: str) -> Any:
    """The value at `a.b['c d']`, None when it is not there."""
    value: Any = twin
    for part in _PART.findall(path):
        value = value.get(part[0] or part[1]) if isinstance(value, dict) else None
    return value


def _items(text: str) -> Iterable[_Item]:
    parts = text.split(",")
    if len(parts) > MAX_ITEMS:
        raise bad_request(f"at most {MAX_ITEMS} columns", where="SELECT")
    for number, part in enumerate(parts, start=1):
        match = _ITEM.fullmatch(part)
        if match is None or (match["function"] and match["function"].lower() != "count" and not match["argument"]):
            raise bad_request(f"cannot read {part.strip()[:80]!r}", where="SELECT")
        path = match["property"] or match["argument"] or ""
        last = _PART.findall(path)[-1] if path else ("", "")
        unnamed = f"${number}" if match["function"] else last[0] or last[1]
        yield _Item(match["name"] or unnamed, path, (match["function"] or "").lower())


def _without_escapes(text: str) -> str:
    return _ESCAPED.sub(lambda match: f"['{match[1]}']", text)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
