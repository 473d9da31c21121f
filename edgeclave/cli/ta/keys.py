"""`edgeclave ta keys`: the keys of the key folder that sign packages. Keys are made and listed by `edgeclave keys`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgeclave.cli.ta.common import Json, Keys
from edgeclave.develop.signing_keys import SigningKey, signing_keys
from edgeclave.keys import DEFAULT_FOLDER


def keys(
    keys: Keys = DEFAULT_FOLDER,
    below: Annotated[
        Path, typer.Option("--below", help="Where to look for packages that a key has signed.", file_okay=False)
    ] = Path(),
    as_json: Json = False,
) -> None:
    """List the keys that sign packages: signer_id, kind, dates, and which packages here they have signed.

    Example: edgeclave ta keys --json
    """
    found = signing_keys(keys, below)
    if as_json:
        typer.echo(json.dumps([_described(key) for key in found], indent=2))
        return
    if not found:
        typer.echo(f"no key in {keys} has signed anything; `edgeclave ta sign` makes one", err=True)
    for key in found:
        typer.echo(f"{key.name}  {key.signer_id.hex()}")
        typer.echo(f"  {key.kind}, made {key.made:%Y-%m-%d}, {key.issued}")
        for package in key.packages:
            typer.echo(f"  signed {package}")


def _described(key: SigningKey) -> dict[str, object]:
    return {
        "name": key.name,
        "signer_id": key.signer_id.hex(),
        "kind": key.kind,
        "made": key.made.isoformat(),
        "not_before": key.not_before.isoformat(),
        "not_after": key.not_after.isoformat(),
        "private": key.private,
        "packages": [str(package) for package in key.packages],
    }
