"""`edgeclave consume`: the relying party on the command line."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgeclave.cloud.archive import ISSUER, Archive
from edgeclave.cloud.connection import EVENT_HUB_VARIABLE, connection_string, parse_event_hub
from edgeclave.cloud.consume import consume as read_hub
from edgeclave.cloud.events import EventSource
from edgeclave.cloud.heads import HeadStore
from edgeclave.cloud.lines import HumanLines, JsonLines, printable
from edgeclave.cloud.reader import Reader
from edgeclave.cloud.summary import Summary
from edgeclave.cloud.verifier_service.keyring import DEFAULT_FOLDER, FOLDER_VARIABLE, load_keyring
from edgeclave.errors import ConfigurationError
from edgeclave.evidence.endorsements import Endorsements, endorsement_folder
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.policy_embedding import embed_policy
from edgeclave.evidence.policy_file import load_policy
from edgeclave.keys import load_private_key

DEFAULT_STATE = Path(".edgeclave/reader")
TROUBLED = 3


class Start(StrEnum):
    EARLIEST = "earliest"
    LATEST = "latest"


def consume(
    key: Annotated[Path, typer.Option(help="Private key of the recipient (NAME.key.pem).")],
    policy: Annotated[Path, typer.Option(help="What to accept; see `edgeclave policy init`.")],
    eventhub: Annotated[
        str | None,
        typer.Option(help=f"Connection string, or @FILE that holds it. Default: the variable {EVENT_HUB_VARIABLE}."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line; the last is the summary.")] = False,
    ca: Annotated[Path | None, typer.Option(help="PEM certificates to trust instead of the public ones.")] = None,
    state: Annotated[Path, typer.Option(help="Where heads, held messages and positions are kept.")] = DEFAULT_STATE,
    for_seconds: Annotated[float | None, typer.Option("--for", min=0, help="End after so many seconds.")] = None,
    until_idle: Annotated[
        float | None, typer.Option(min=0, help="End when all is read and nothing came for so many seconds.")
    ] = None,
    start: Annotated[
        Start, typer.Option("--from", help="Where to begin in a hub that this state folder has not read yet.")
    ] = Start.EARLIEST,
    accept_restart: Annotated[
        list[str] | None,
        typer.Option(metavar="INSTANCE", help="Go on from this instance, which a rollback, fork or reset reported."),
    ] = None,
    accept_loss: Annotated[
        list[str] | None,
        typer.Option(metavar="INSTANCE/OUTPUT", help="Give up what is missing before this instance's held results."),
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep what proves each accepted result again, years later.")
    ] = None,
    verifier_keys: Annotated[
        Path, typer.Option(envvar=FOLDER_VARIABLE, help="Keys that sign archived attestation results.")
    ] = DEFAULT_FOLDER,
) -> None:
    """Read, verify and open sealed results, and report what is missing or wrong.

    Every result is used once: heads are kept in the state folder, so stop and start this at any time. A line that was
    written when the process was killed may be written again, with the same `number`.

    Exit codes: 0 all is well; 1 it could not run; 2 wrong usage; 3 something was refused or lost, or a gap, rollback,
    fork, reset or equivocation is there.

    Example: edgeclave consume --eventhub @hub.txt --ca ca.pem --key .edgeclave/keys/reader.key.pem --policy policy.toml
    """
    logging.getLogger("azure").setLevel(logging.CRITICAL)  # its warnings come as notices or errors of ours
    text = connection_string(eventhub, variable=EVENT_HUB_VARIABLE, option="--eventhub")
    connection = parse_event_hub(text, where="--eventhub" if eventhub else EVENT_HUB_VARIABLE)
    loaded_policy, recipient_key = load_policy(policy), load_private_key(key)
    lines = JsonLines(sys.stdout) if as_json else HumanLines(sys.stdout)
    notices = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    known = Endorsements(folders=[endorsement_folder()])
    kept = None if archive is None else _archive(archive, policy, loaded_policy, known, verifier_keys)
    store = HeadStore(state)
    try:
        source = EventSource(
            connection,
            positions=store.positions(),
            earliest=start is Start.EARLIEST,
            ca_file=ca,
            notice=lambda code, what: notices.print(f"notice [{code}]: {printable(what)}", markup=False),
        )
        reader = Reader(loaded_policy, recipient_key, store, endorsements=known, archive=kept)
        _decide(reader, accept_restart or [], accept_loss or [])
        summary = asyncio.run(_run(reader, source, lines, for_seconds, until_idle))
    finally:
        store.close()
    lines.summary(summary)
    if summary.troubled:
        raise typer.Exit(TROUBLED)


async def _run(
    reader: Reader,
    source: EventSource,
    lines: JsonLines | HumanLines,
    for_seconds: float | None,
    until_idle: float | None,
) -> Summary:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return await read_hub(
        reader, source, lines.findings, stop=stop, for_seconds=for_seconds, until_idle_seconds=until_idle
    )


def _archive(folder: Path, policy: Path, loaded: Policy, known: Endorsements, keys: Path) -> Archive:
    signer = load_keyring(keys, ISSUER).signer(int(time.time()))
    return Archive(folder, loaded, embed_policy(policy), known, signer)


def _decide(reader: Reader, restarts: list[str], losses: list[str]) -> None:
    """What follows from it is not confirmed yet, so it is written first in this run."""
    for text in restarts:
        reader.accept_restart(_instance(text, "--accept-restart"))
    for text in losses:
        instance, _, output = text.partition("/")
        reader.accept_loss(_instance(instance, "--accept-loss"), output)


def _instance(text: str, option: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise ConfigurationError(
            "bad-instance",
            "an instance is named by 64 hex digits",
            where=option,
            advice="take `instance` from the line that reported it",
        ) from error
