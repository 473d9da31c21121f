"""`edgeclave keys`: the key folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgeclave.cose import thumbprint
from edgeclave.keys import DEFAULT_FOLDER, FOLDER_VARIABLE, create_key, list_keys, private_key_path, public_key_path

app = typer.Typer(help="The key folder: signing keys, recipient authorities, readers.")

Keys = Annotated[Path, typer.Option("--keys", envvar=FOLDER_VARIABLE, help="Key folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="What to call the key.")],
    keys: Keys = DEFAULT_FOLDER,
    as_json: Json = False,
) -> None:
    """Make a P-256 key: NAME.key.pem (for you alone) and NAME.pub.pem (to give away).

    Example: edgeclave keys new reader
    """
    key = create_key(keys, name)
    private, public = private_key_path(keys, name), public_key_path(keys, name)
    made = {
        "name": name,
        "thumbprint": thumbprint(key.public_key()).hex(),
        "private_key": str(private),
        "public_key": str(public),
    }
    typer.echo(json.dumps(made) if as_json else f"{private} and {public}")


@app.command("list")
def list_(keys: Keys = DEFAULT_FOLDER, as_json: Json = False) -> None:
    """List the keys of the folder with their thumbprints (RFC 9679), never their private halves.

    Example: edgeclave keys list --json
    """
    stored = list_keys(keys)
    if as_json:
        rows = [{"name": key.name, "thumbprint": key.thumbprint.hex(), "private": key.private} for key in stored]
        typer.echo(json.dumps(rows))
        return
    for key in stored:
        typer.echo(f"{key.name}  {key.thumbprint.hex()}{'' if key.private else '  (public half only)'}")
