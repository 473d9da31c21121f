"""`edgeclave platform`: the TEEs of this machine, and the emulator's trust anchor."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Annotated

import typer

from edgeclave.evidence.runtime import runtime_digest
from edgeclave.platforms.emulator import Emulator

app = typer.Typer(help="The TEEs of this machine, and the emulator's trust anchor.")

_State = Annotated[Path, typer.Option("--state", help="The emulator's folder; made if it is missing.", file_okay=False)]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def show(state: _State, as_json: _Json = False) -> None:
    """Show what a reader pins of this machine's emulator: its anchor, its instance and the runtime it runs.

    Example: `edgeclave platform show --state .edgeclave/emulator`
    """
    emulator = _emulator(state)
    values = {
        "platform": emulator.name,
        "class": "emulated",
        "anchor_file": str(emulator.anchor_file),
        "anchor": base64.b64encode(emulator.anchor()).decode(),
        "platform_instance": emulator.platform_instance().hex(),
        "runtime_digest": runtime_digest().hex(),
    }
    _print(values, as_json)


@app.command()
def probe(as_json: _Json = False) -> None:
    """Say which TEEs this machine offers, and why not.

    Example: `edgeclave platform probe`
    """
    platforms = (_emulator(Path()), Emulator(Path(), Path(), counter=True))
    found = {platform.name: platform.probe() for platform in platforms}
    if as_json:
        typer.echo(json.dumps({name: {"available": it.available, "detail": it.detail} for name, it in found.items()}))
        return
    width = max(map(len, found))
    for name, it in found.items():
        typer.echo(f"{name:<{width}}  {'available' if it.available else 'not available'}: {it.detail}")


def _emulator(folder: Path) -> Emulator:
    return Emulator(folder, folder / "compiled")


def _print(values: dict[str, str], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(values))
        return
    width = max(len(name) for name in values)
    for name, value in values.items():
        typer.echo(f"{name.replace('_', ' '):<{width}}  {value}")
