"""`edgeclave demo`: the main job on this machine."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from edgeclave.demo.prepare import prepare
from edgeclave.demo.run import run, write_summary
from edgeclave.demo.tally import Tally
from edgeclave.demo.view import render
from edgeclave.errors import EdgeclaveError


def demo(
    seconds: Annotated[float, typer.Option(min=5, help="How long to read this machine's vitals.")] = 20,
    state: Annotated[Path, typer.Option(help="Where keys, logs and state are kept.")] = Path(".edgeclave/demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")] = False,
) -> None:
    """Run the main job to its end: simulator, three modules, this machine's vitals, sealed results, a reader.

    Emulated: the trusted application runs in the software TEE emulator, and its evidence says so.

    Example: `edgeclave demo --seconds 30`
    """
    console = Console(stderr=as_json, highlight=False, emoji=False)
    with console.status("Preparing keys and the signed trusted application ..."):
        prepared = prepare(
            state.absolute(),
            Path.cwd(),
            lambda line: console.print(f"$ {line}", style="dim", markup=False, soft_wrap=True),
        )
    with Live(console=console, refresh_per_second=8, transient=not console.is_terminal) as live:

        def show(tally: Tally, device: dict[str, int], phase: str) -> None:
            if console.is_terminal:
                live.update(render(tally, device, phase))

        summary = asyncio.run(run(prepared, seconds, show))
    path = prepared.folder / "summary.json"
    write_summary(summary, path)
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
    if not summary.complete:
        raise EdgeclaveError(
            "demo-incomplete",
            f"the device sealed {summary.sealed} results; the reader opened {summary.opened}, "
            f"refused {summary.refused} and misses {summary.gaps}",
            where=str(path),
            advice=f"see the log files in {state}",
        )
    anomalies = "anomaly" if summary.anomalies == 1 else "anomalies"
    console.print(
        f"[bold green]Done:[/] {summary.readings} readings, {summary.sealed} results sealed on the device, "
        f"{summary.opened} verified and opened by the reader ({summary.anomalies} {anomalies}), "
        f"{summary.refused} refused, evidence: {summary.evidence_type}.",
        soft_wrap=True,
    )
