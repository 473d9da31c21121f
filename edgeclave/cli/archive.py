"""`edgeclave archive`: what a relying party kept, to be proven again years later."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import rfc3161_client
import typer
from rich.console import Console

from edgeclave.cloud.timestamps import MAX_LISTED, Authorities, list_files, store_timestamp, unlisted
from edgeclave.cloud.vendor_services.https import VendorService
from edgeclave.errors import ConfigurationError

app = typer.Typer(help="What `edgeclave consume --archive` keeps, for years.")


@app.callback()
def archive() -> None:
    """An archive says when each result was received; a timestamp lets somebody else say that it existed by then."""


@app.command()
def timestamp(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The archive.", exists=True, file_okay=False)],
    authority: Annotated[
        str,
        typer.Option(metavar="URL", help="A timestamp authority (RFC 3161), https or http: what it says is signed."),
    ],
    timestamp_ca: Annotated[
        Path, typer.Option(help="Its root, PEM: without a valid answer under it, nothing is stored.")
    ],
    ca: Annotated[
        Path | None, typer.Option(help="PEM certificates to trust for TLS instead of the public ones.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Have a timestamp authority say that everything new in the archive exists now. It gets one digest to see.

    Call it regularly, soon after results come in; nothing happens where nothing is new. `edgeclave verify --at T
    --timestamp-ca FILE` then says from when on a result is provable.

    Example: edgeclave archive timestamp archive --authority https://tsa.example --timestamp-ca tsa-root.pem
    """
    authorities = Authorities.from_pem(timestamp_ca)
    if not (folder / "results").is_dir():
        raise ConfigurationError(
            "not-an-archive", "there are no results in it", where=str(folder), advice="name what `--archive` wrote"
        )
    console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    try:
        paths = unlisted(folder)
        with console.status(f"Having {len(paths)} files timestamped ..."):
            stored = asyncio.run(_timestamp(folder, paths, authority, authorities, ca))
    except OSError as error:
        raise ConfigurationError(
            "archive-unreadable",
            f"cannot read: {error.strerror}",
            where=str(error.filename or folder),
            advice="make it readable, or restore it from a copy",
        ) from error
    if as_json:
        typer.echo(json.dumps({"files": len(paths), "timestamps": [str(path) for path in stored]}))
        return
    typer.echo(f"{len(paths)} new files" + "".join(f"\n{path}" for path in stored))


async def _timestamp(folder: Path, paths: list[str], url: str, authorities: Authorities, ca: Path | None) -> list[Path]:
    stored = []
    async with VendorService(url, ca, schemes=("https", "http")) as service:
        for first in range(0, len(paths), MAX_LISTED):
            listed = list_files(folder, paths[first : first + MAX_LISTED])
            builder = rfc3161_client.TimestampRequestBuilder(hash_algorithm=rfc3161_client.HashAlgorithm.SHA256)
            request = builder.data(listed).nonce(nonce=True).build()
            answer = await service.post(request.as_bytes(), "application/timestamp-query", "timestamp")
            authorities.verify(answer.body, listed, request.nonce)
            stored.append(store_timestamp(folder, listed, answer.body))
    return stored
