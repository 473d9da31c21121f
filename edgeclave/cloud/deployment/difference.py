"""Two contents of deployments compared, module by module and field by field.

What a person thinks of as a module is in two places of a manifest: its entry in $edgeAgent and its own twin. Here they
are together: `settings.image` is from the entry, `twin.source.kind` from the twin.

>>> old = {"$edgeAgent": {"properties.desired": {"modules": {"m": {"settings": {"image": "m:1"}}}}}}
>>> new = {"$edgeAgent": {"properties.desired": {"modules": {"m": {"settings": {"image": "m:2"}}}}}}
>>> compare(old, new)
[ModuleDifference(module='m', kind='changed', fields=(FieldDifference(field='settings.image', kind='changed', old='m:1', new='m:2'),))]
"""  # noqa: E501 - a doctest's output is one line

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from edgeclave.deployment.create_options import KEYS, NAME

WHOLE = "properties.desired"
EDGE_AGENT = "$edgeAgent"
HIDDEN = "(hidden)"
Kind = Literal["added", "removed", "changed"]
Fields = dict[str, Any]  # dotted name -> value; a list is one value
_SECRET = re.compile(r"password|secret|token|connection_?string|access_?key|api_?key|(^|_)key$", re.IGNORECASE)
_SECRET_INSIDE = re.compile(r"SharedAccessKey=|SharedAccessSignature|AccountKey=|PRIVATE KEY")
_ENTRY = re.compile(r"(?:modules|systemModules)\.([^.]+)\.(.+)")
_ABSENT = object()


class FieldDifference(msgspec.Struct, frozen=True):
    """One field. `old` and `new` are HIDDEN where the name says that the value is a secret."""

    field: str
    kind: Kind
    old: Any = None
    new: Any = None


class ModuleDifference(msgspec.Struct, frozen=True):
    """One module; a removed one has no fields."""

    module: str
    kind: Kind
    fields: tuple[FieldDifference, ...] = ()


class Difference(msgspec.Struct, frozen=True):
    """All of it. `settings` are those of an automatic deployment: target, priority, labels."""

    modules: tuple[ModuleDifference, ...] = ()
    settings: tuple[FieldDifference, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.modules and not self.settings


Content = Mapping[str, Mapping[str, Any]]


def compare(old: Content, new: Content) -> list[ModuleDifference]:
    """What the new content changes, in the order of names. What it does not speak of stays, and is no difference."""
    before, after = _by_module(old), _by_module(new)
    spoken = _spoken_of(new)
    differences = []
    for module in sorted(before.keys() | after.keys()):
        had, has = before.get(module, {}), after.get(module, {})
        deployed, deploys = _is_deployed(had), _is_deployed(has)
        if deployed and not deploys and spoken(module, "settings.image"):
            differences.append(ModuleDifference(module, "removed"))
            continue
        kept = {name: value for name, value in had.items() if name in has or spoken(module, name)}
        if fields := _compare_fields(kept, has):
            kind: Kind = "added" if deploys and not deployed else "changed"
            differences.append(ModuleDifference(module, kind, tuple(fields)))
    return differences


def compare_values(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[FieldDifference]:
    """Two objects, field by field."""
    return _compare_fields(_flat(old, ""), _flat(new, ""))


def _compare_fields(old: Fields, new: Fields) -> list[FieldDifference]:
    differences = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if (before == {} and _is_filled(name, new)) or (after == {} and _is_filled(name, old)):
            continue  # an empty object that gets members, or loses the last: they are the difference
        if before is _ABSENT:
            differences.append(FieldDifference(name, "added", new=_shown(name, after)))
        elif after is _ABSENT:
            differences.append(FieldDifference(name, "removed", old=_shown(name, before)))
        elif before != after:
            differences.append(FieldDifference(name, "changed", _shown(name, before), _shown(name, after)))
    return differences


def _is_filled(name: str, fields: Fields) -> bool:
    return any(other.startswith(f"{name}.") for other in fields)


def _by_module(content: Content) -> dict[str, Fields]:
    modules: dict[str, Fields] = {}
    for section, entries in content.items():
        for path, value in entries.items():
            inside = path[len(WHOLE) :].removeprefix(".")
            for name, leaf in _flat(value, inside).items():
                if section == EDGE_AGENT and name in ("modules", "systemModules"):
                    continue  # an empty list of modules
                module, field = _place(section, name)
                modules.setdefault(module, {})[field] = leaf
    return modules


def _place(section: str, name: str) -> tuple[str, str]:
    """Whose field it is, and its name there."""
    if section == EDGE_AGENT:
        entry = _ENTRY.fullmatch(name)
        return (entry[1], entry[2]) if entry else (EDGE_AGENT, name)
    return section, f"twin.{name}" if name else "twin"


def _spoken_of(content: Content) -> Any:
    """Says of a module's field whether the content decides about it: by the whole, or by a path above it."""

    def spoken(module: str, field: str) -> bool:
        if field.startswith("twin"):
            section, names = module, [field.removeprefix("twin").removeprefix(".")]
        else:
            section = EDGE_AGENT
            names = [f"{kind}.{module}.{field}" for kind in ("modules", "systemModules")] + [field]
        paths = [path[len(WHOLE) :].removeprefix(".") for path in content.get(section, {})]
        return any(path == "" or name == path or name.startswith(f"{path}.") for path in paths for name in names)

    return spoken


def _is_deployed(fields: Fields) -> bool:
    return any(not name.startswith("twin") for name in fields)


def _flat(value: Any, prefix: str) -> Fields:
    if not isinstance(value, Mapping) or (not value and prefix):
        return {prefix: value}
    flat: Fields = {}
    for name, member in _readable(value).items():
        if not name.startswith("$"):  # the hub's own bookkeeping
            flat |= _flat(member, f"{prefix}.{name}" if prefix else name)
    return flat


def _readable(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """createOptions as the object that its pieces are."""
    pieces = [value[key] for key in KEYS if key in value]
    if not pieces or not all(isinstance(piece, str) for piece in pieces):
        return value
    try:
        options = json.loads("".join(pieces) or "{}")
    except ValueError:
        return value
    return {**{name: member for name, member in value.items() if name not in KEYS}, NAME: options}


def _shown(name: str, value: Any) -> Any:
    """The value, unless its name, or something in it, says that it is a secret."""
    if isinstance(value, list):
        return [_shown(_assigned(item), item) for item in value]
    parts = name.removesuffix(".value").split(".")
    secret = _SECRET.search(parts[-1]) or (isinstance(value, str) and _SECRET_INSIDE.search(value))
    return HIDDEN if secret else value


def _assigned(item: object) -> str:
    """The name in `NAME=value`, as createOptions have environment variables."""
    name, equals, _ = item.partition("=") if isinstance(item, str) else ("", "", "")
    return name if equals else ""
