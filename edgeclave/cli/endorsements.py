"""`edgeclave endorsements`: the folder of what vendors say about platforms, which the operator fills."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from edgeclave.cli.verify_inputs import read_endorsement_file, read_endorsement_files
from edgeclave.errors import ConfigurationError
from edgeclave.evidence.endorsements import (
    FOLDER_VARIABLE,
    Endorsement,
    day,
    endorsement_folder,
    store,
    stored,
)
from edgeclave.evidence.kinds import endorsement_types
from edgeclave.evidence.policy_file import load_policy

app = typer.Typer(help="What vendors say about platforms: certificates, revocations, TCB information.")

_Folder = Annotated[
    Path | None, typer.Option("--folder", help=f"Default: {FOLDER_VARIABLE}, or .edgeclave/endorsements.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def endorsements() -> None:
    """Verification never touches the network: import endorsements from files, or fetch them from the vendor beforehand.

    They need no trust, because each is signed up to the root it is used with.
    """


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="A file, or a folder of files.", exists=True)],
    folder: _Folder = None,
    as_json: _Json = False,
) -> None:
    """Import what a file or a folder of files holds.

    Example: edgeclave endorsements import collateral.json
    """
    found = list(read_endorsement_files(source)) if source.is_dir() else [(source, read_endorsement_file(source))]
    imported = [endorsement for _, held in found for endorsement in held]
    if not imported:
        known = ", ".join(each.title for each in endorsement_types().values())
        raise ConfigurationError(
            "no-endorsement", "nothing here is an endorsement", where=str(source), advice=f"this release knows: {known}"
        )
    target = folder or endorsement_folder()
    for endorsement in imported:
        store(target, endorsement)
    for path, held in found:
        if not held:
            typer.echo(f"left out, not an endorsement: {path}", err=True)
    _print(imported, as_json)


@app.command("fetch")
def fetch_(
    evidence: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE...", help="Evidence, quotes or reports of the platforms.")
    ] = None,
    sgx_fmspc: Annotated[
        list[str] | None, typer.Option(metavar="HEX", help="Collateral of this model of SGX platform.")
    ] = None,
    tdx_fmspc: Annotated[list[str] | None, typer.Option(metavar="HEX", help="The same for TDX.")] = None,
    amd_product: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Chains and revocation lists of Milan, Genoa or Turin."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="A PCCS or mirror to ask instead of the vendor."),
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="PEM certificates to trust instead of the public ones.")] = None,
    policy: Annotated[Path | None, typer.Option(help="Trust the roots it names instead of the vendors'.")] = None,
    folder: _Folder = None,
    as_json: _Json = False,
) -> None:
    """Fetch what the vendor publishes for these platforms now, verify all of it up to the pinned root, and store it.

    Intel learns the model of a platform, AMD which chip it is. A VLEK is not published: import it from the guest. Call
    it again before what it stored expires (`edgeclave endorsements show`); Intel's lasts 30 days.

    Example: edgeclave endorsements fetch quote.bin

    Example: edgeclave endorsements fetch --sgx-fmspc 00A067110000 --from https://pccs.example:8081
    """
    # Only this command imports what can reach a network.
    from edgeclave.cli.endorsements_fetch import fetch_endorsements

    trusted = None if policy is None else load_policy(policy)
    found = fetch_endorsements(evidence or [], sgx_fmspc or [], tdx_fmspc or [], amd_product or [], trusted, url, ca)
    target = folder or endorsement_folder()
    for endorsement in found:
        store(target, endorsement)
    _print(found, as_json)


@app.command()
def show(folder: _Folder = None, as_json: _Json = False) -> None:
    """Show what is at hand, about what, and when it is valid.

    Example: edgeclave endorsements show --json
    """
    _print(stored(folder or endorsement_folder(), endorsement_types().values()), as_json)


def _print(found: list[Endorsement], as_json: bool) -> None:
    now = int(time.time())
    rows = [
        {
            "type": each.type,
            "subject": each.subject,
            "not_before": each.not_before,
            "not_after": each.not_after,
            "state": "expired" if now > each.not_after else "valid" if now >= each.not_before else "not yet valid",
            "sha256": each.digest.hex(),
        }
        for each in found
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for each, row in zip(found, rows, strict=True):
        typer.echo(f"{each.type}  {each.subject}  {day(each.not_before)} to {day(each.not_after)}  {row['state']}")
    if not rows:
        typer.echo("no endorsements; see `edgeclave endorsements import --help`")
