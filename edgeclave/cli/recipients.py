"""`edgeclave recipients`: who may read which output."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Annotated

import typer

from edgeclave.errors import ConfigurationError
from edgeclave.keys import (
    DEFAULT_FOLDER,
    FOLDER_VARIABLE,
    load_private_key,
    load_public_key,
    private_key_path,
    public_key_path,
    set_env_variable,
)
from edgeclave.results.recipients import sign_recipient_set, verify_recipient_set

app = typer.Typer(help="Who may read which output.")


@app.callback()
def recipients() -> None:
    """Recipient sets, signed by the authority that the manifest names per output."""


@app.command()
def sign(
    output: Annotated[str, typer.Option("--output", help="Output of the trusted application.")],
    version: Annotated[int, typer.Option("--version", min=1, help="Higher than that of every set before.")],
    recipient: Annotated[list[str], typer.Option("--recipient", help="Name of a reader's key; repeat for more.")],
    authority: Annotated[str, typer.Option("--authority", help="Name of the key that ta.toml names.")],
    keys: Annotated[Path, typer.Option("--keys", envvar=FOLDER_VARIABLE, help="Key folder.")] = DEFAULT_FOLDER,
    env: Annotated[Path | None, typer.Option("--env", help=".env file to write to, instead of printing.")] = None,
    variable: Annotated[str | None, typer.Option("--variable", help="Its variable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Sign a recipient set: the keys that results of one output are sealed to from now on.

    Prints it in base64url, as `recipients` of ta_runner's twin takes it.

    Example: edgeclave recipients sign --output anomalies --version 1 --recipient reader --authority reader-authority
    """
    if (env is None) != (variable is None):
        raise ConfigurationError("bad-usage", "--env and --variable go together", advice="give both or neither")
    authority_key = load_private_key(private_key_path(keys, authority))
    readers = [load_public_key(public_key_path(keys, name)) for name in recipient]
    message = sign_recipient_set(output, version, readers, authority_key)
    signed = verify_recipient_set(message, authority_key.public_key())
    encoded = base64.urlsafe_b64encode(message).rstrip(b"=").decode()
    if env is not None and variable is not None:
        set_env_variable(env, variable, encoded)
    if as_json:
        described = {
            "output": signed.output,
            "version": signed.version,
            "digest": signed.digest.hex(),
            "recipients": [thumbprint.hex() for thumbprint in signed.thumbprints],
            "set": encoded,
        }
        typer.echo(json.dumps(described))
    else:
        typer.echo(encoded if env is None else f"{variable} in {env}")
