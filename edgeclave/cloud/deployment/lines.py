"""A deployment's difference and its devices' states, as JSON lines for programs and as text for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from rich.console import Console
from rich.text import Text

from edgeclave.cloud.deployment.difference import HIDDEN, Difference, FieldDifference, ModuleDifference
from edgeclave.cloud.deployment.states import Level, State
from edgeclave.cloud.deployment.watch import Ended, Look
from edgeclave.cloud.lines import printable

MAX_VALUE_CHARACTERS = 72
_MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}
_LEVELS = {Level.OK: ("ok", "green"), Level.WAITING: ("waiting", "yellow"), Level.FAILED: ("failed", "bold red")}


class Lines(Protocol):
    """What is shown of a deployment, in the order it happens."""

    def difference(self, title: str, difference: Difference, notes: Sequence[str]) -> None: ...
    def applied(self, title: str) -> None: ...
    def look(self, look: Look) -> None: ...
    def ended(self, ended: Ended) -> None: ...


class JsonLines:
    """One JSON object a line, each with `event`: difference, applied, state (when it changes), counts, ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[tuple[str, str], State] = {}
        self._counts: dict[str, int] = {}

    def difference(self, title: str, difference: Difference, notes: Sequence[str]) -> None:
        self._write("difference", {"of": title, **msgspec.to_builtins(difference), "notes": list(notes)})

    def applied(self, title: str) -> None:
        self._write("applied", {"of": title})

    def look(self, look: Look) -> None:
        for state in _changed(look.states, self._shown):
            self._write("state", msgspec.to_builtins(state))
        if look.counts != self._counts:
            self._counts = look.counts
            self._write("counts", look.counts)

    def ended(self, ended: Ended) -> None:
        wrong = [msgspec.to_builtins(state) for state in ended.look.states if state.level is not Level.OK]
        self._write(
            "ended",
            {
                "healthy": ended.healthy and bool(ended.look.devices),
                "devices": len(ended.look.devices),
                "healthyDevices": ended.look.healthy_devices,
                "settled": ended.settled,
                "counts": ended.look.counts,
                "wrong": wrong,
            },
        )

    def _write(self, event: str, members: dict[str, Any]) -> None:
        self._console.file.write(json.dumps({"event": event, **members}) + "\n")
        self._console.file.flush()


class HumanLines:
    """A difference as a list of modules and fields; a line for each state that changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[tuple[str, str], State] = {}
        self._counts: dict[str, int] = {}

    def difference(self, title: str, difference: Difference, notes: Sequence[str]) -> None:
        self._console.print(Text(title, style="bold"))
        for change in difference.settings:
            self._console.print(_field(change, indent="  "))
        for module in difference.modules:
            self._print_module(module)
        if difference.empty:
            self._console.print("  nothing changes")
        for note in notes:
            self._console.print(Text("note ", style="yellow").append(printable(note), style="default"))

    def applied(self, title: str) -> None:
        self._console.print(Text(f"{title}: given to the hub; watching what the devices report"))

    def look(self, look: Look) -> None:
        for state in _changed(look.states, self._shown):
            self._print_state(state)
        if look.counts and look.counts != self._counts:
            self._counts = look.counts
            self._console.print(Text(_counted(look.counts), style="dim"))

    def ended(self, ended: Ended) -> None:
        devices, healthy = len(ended.look.devices), ended.look.healthy_devices
        wrong = [state for state in ended.look.states if state.level is not Level.OK]
        if not devices:
            self._console.print(Text("stored in the hub; it targets no device yet", style="bold yellow"))
        elif ended.healthy:
            self._console.print(Text(f"healthy: {healthy} of {devices} devices run it", style="bold green"))
        else:
            why = "" if ended.settled else ", and the time is up"
            self._console.print(Text(f"not healthy: {healthy} of {devices} devices run it{why}", style="bold red"))
            for state in wrong:
                self._print_state(state, advise=True)

    def _print_module(self, module: ModuleDifference) -> None:
        mark, style = _MARKS[module.kind]
        self._console.print(Text(f"{mark} {printable(module.module)}", style=style))
        for change in module.fields:
            self._console.print(_field(change, indent="    "))

    def _print_state(self, state: State, *, advise: bool = False) -> None:
        name, style = _LEVELS[state.level]
        line = Text(f"{name:<8}", style=style)
        line.append(f" {printable(state.device)}", style="bold default")
        line.append(f"  {printable(state.part)}  {printable(state.what)}", style="default")
        self._console.print(line)
        if advise and state.advice:
            self._console.print(Text(f"         do: {printable(state.advice)}", style="dim"))


def _changed(states: Sequence[State], shown: dict[tuple[str, str], State]) -> list[State]:
    changed = [state for state in states if shown.get((state.device, state.part)) != state]
    shown.update({(state.device, state.part): state for state in changed})
    return changed


def _field(change: FieldDifference, *, indent: str) -> Text:
    mark, style = _MARKS[change.kind]
    text = Text(f"{indent}{mark} {printable(change.field)}: ", style=style)
    old, new = _value(change.old), _value(change.new)
    said = {"added": new, "removed": old, "changed": f"{old} -> {new}"}[change.kind]
    return text.append(said, style="default")


def _value(value: object) -> str:
    """Long values keep both ends: digests and keys differ there."""
    text = printable(value if isinstance(value, str) and value == HIDDEN else json.dumps(value, ensure_ascii=False))
    half = MAX_VALUE_CHARACTERS // 2
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[:half]}…{text[-half + 1 :]}"


def _counted(counts: dict[str, int]) -> str:
    """The hub knows what edgeAgent made of the deployment, and nothing of what became of the modules."""
    return "the hub counts, of edgeAgents: " + ", ".join(
        f"{name.removesuffix('Count')} {count}" for name, count in counts.items()
    )
