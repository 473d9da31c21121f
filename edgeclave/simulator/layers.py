"""How configurations of different priority make one content: pure rules, no storage.

1. Of the base deployments (those that give $edgeAgent all its desired properties) the one of highest priority counts;
   between equals the newest.
2. A layered deployment (paths below `properties.desired` of $edgeAgent and $edgeHub) counts when its priority is higher
   than the base's.
3. Layers are put on by rising priority. `properties.desired` replaces all of a module, `properties.desired.a.b` that
   part.

>>> overlay({"a": {"b": 1}}, ["a", "c"], 2)
{'a': {'b': 1, 'c': 2}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeclave.deployment.conditions import Condition
from edgeclave.simulator.hub_errors import bad_request
from edgeclave.simulator.identities import SYSTEM_MODULES
from edgeclave.simulator.twin_document import Section

WHOLE = "properties.desired"
EDGE_AGENT = SYSTEM_MODULES[0]
MODULE_CONDITION = "from devices.modules where "
Content = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Configuration:
    """A stored configuration; `condition` is None when it targets nothing.

    `document` is what the client gave: id, schemaVersion, labels, content, targetCondition, priority, metrics.
    """

    id: str
    document: Mapping[str, Any]
    etag: str
    created: str
    updated: str
    condition: Condition | None

    @property
    def priority(self) -> int:
        return int(self.document.get("priority") or 0)

    @property
    def content(self) -> Mapping[str, Any]:
        return self.document.get("content") or {}

    @property
    def of_modules(self) -> bool:
        """Whether it is for module twins (`FROM devices.modules WHERE ...`) rather than for devices."""
        return str(self.document.get("targetCondition") or "").lower().startswith(MODULE_CONDITION)

    @property
    def modules_content(self) -> Content:
        return self.content.get("modulesContent") or {}

    @property
    def is_base(self) -> bool:
        return WHOLE in self.modules_content.get(EDGE_AGENT, {})

    @property
    def rank(self) -> tuple[int, str, str]:
        return self.priority, self.created, self.id


def stack(targeting: Sequence[Configuration]) -> list[Configuration]:
    """The deployments that count, lowest first; the first one is the base. Empty without a base."""
    bases = [each for each in targeting if each.modules_content and each.is_base]
    if not bases:
        return []
    base = max(bases, key=lambda each: each.rank)
    layers = [each for each in targeting if each.modules_content and not each.is_base and each.priority > base.priority]
    return [base, *sorted(layers, key=lambda each: each.rank)]


def combined(layers: Sequence[Content]) -> dict[str, dict[str, Any]]:
    """One content of all layers, lowest first.

    A module of which some layer gives the whole has one entry `properties.desired`; others keep their paths.
    """
    result: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for module, entries in layer.items():
            result[module] = put_on(result.get(module, {}), entries)
    return result


def put_on(below: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of one module or device with a layer's on top of those below it."""
    top = dict(below)
    if WHOLE in entries:
        top = {WHOLE: entries[WHOLE]}
    for path, value in entries.items():
        if path == WHOLE:
            continue
        if WHOLE in top:
            top[WHOLE] = overlay(top[WHOLE], parts_of(path), value)
        else:
            inside = path + "."
            top = {other: held for other, held in top.items() if not other.startswith(inside)}
            top[path] = value
    return top


def overlay(section: Mapping[str, Any], path: Sequence[str], value: object) -> Section:
    """The section with the value at a path; what stood there is replaced."""
    result = dict(section)
    if len(path) == 1:
        result[path[0]] = value
    else:
        below = result.get(path[0])
        result[path[0]] = overlay(below if isinstance(below, Mapping) else {}, path[1:], value)
    return result


def parts_of(path: str) -> list[str]:
    """The names in `properties.desired.a.b`.

    Raises:
        HubError: 400 for anything that is not below properties.desired.
    """
    parts = path.removeprefix(WHOLE + ".").split(".") if path.startswith(WHOLE + ".") else []
    if not parts or not all(parts):
        raise bad_request(f"{path[:80]!r} is not {WHOLE} or a path below it", where="content")
    return parts
