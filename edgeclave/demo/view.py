"""The live table of the demo."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeclave.demo.tally import Tally


def render(tally: Tally, device: dict[str, int], phase: str) -> RenderableType:
    """`device`: the counters that sample_analytics reports in its twin."""
    counts = Text.assemble(
        ("readings ", "dim"),
        (f"{device.get('readings', 0)}   ", "bold"),
        ("sealed on the device ", "dim"),
        (f"{device.get('sealed', 0)}   ", "bold"),
        ("verified and opened by the reader ", "dim"),
        (f"{tally.opened}   ", "bold green"),
        ("refused ", "dim"),
        (f"{tally.kinds['refused']}   ", "bold red" if tally.kinds["refused"] else "bold"),
        ("evidence ", "dim"),
        (tally.evidence_type, "bold yellow"),
    )
    table = Table(expand=True, show_edge=False, header_style="dim")
    table.add_column("output", no_wrap=True)
    table.add_column("#", justify="right")
    table.add_column("what the trusted application found", ratio=1, no_wrap=True, overflow="ellipsis")
    for result in tally.latest:
        style = "bold red" if result.get("output") == "anomalies" else ""
        table.add_row(
            str(result.get("output")), str(result.get("sequence")), _short(result.get("payload")), style=style
        )
    return Group(Text(phase, style="bold"), counts, table)


def _short(payload: Any) -> str:
    if not isinstance(payload, dict):
        return json.dumps(payload)
    return "  ".join(f"{name} {_number(value)}" for name, value in payload.items() if value is not None)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
