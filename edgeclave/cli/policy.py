"""`edgeclave policy`: what a relying party accepts."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated

import typer

from edgeclave.errors import ConfigurationError
from edgeclave.evidence.anchors import PLATFORM_CLASSES
from edgeclave.evidence.kinds import KINDS
from edgeclave.evidence.policy_file import load_policy
from edgeclave.keys import load_public_key, public_pem

app = typer.Typer(help="What a relying party accepts.")

_TEMPLATE = """\
# What this relying party accepts. Deny by default: what is not named here is refused.

# Classes of platform. "emulated" is software: it protects nothing from root on the device.
classes = [{platform_class}]

# Accept trusted applications and platforms that can be debugged?
debug = false

# How fresh evidence must be shown to be.
#   "nonce":   only evidence made for a nonce of ours
#   "beacon":  or bound to a beacon that we published
#   "unknown": any age; evidence that nobody asked for carries no proof of its age
freshness = "{freshness}"

# Age in seconds since we issued the nonce or published the beacon.
maximum_age_seconds = 86400

# Trust anchors: each key is of one kind and lies in one class. public_key: a file next to this one, or PEM text.
# device: the IoT Hub device id that this platform was enrolled as; messages from another device are refused.
[[anchors]]
kind = "{kind}"
class = {platform_class}
public_key = '''
{public_key}'''
{device}
# Reference values of the code inside the enclave, per kind of evidence; there is no default.
# "this-release": what the installed release of edgeclave measures. Otherwise SHA-256 digests in hex.
[runtime]
{kind} = ["this-release"]

# Trusted applications: signer_id and product_id, or one unique_id.
[[trusted_apps]]
signer_id = "{signer}"
product_id = {product_id}
minimum_security_version = {minimum_security_version}

# The oldest recipient set, per output, that results may be sealed to.
[recipients.minimum_version]
# anomalies = 1
"""


@app.callback()
def policy() -> None:
    """Policies: which platforms, runtimes and trusted applications to accept."""


@app.command()
def init(
    anchor: Annotated[Path, typer.Option("--anchor", help="Attestation key of the platform (PEM, public).")],
    platform_class: Annotated[str, typer.Option("--class", help=f"One of {', '.join(PLATFORM_CLASSES)}.")],
    signer: Annotated[str, typer.Option("--signer", help="signer_id of the trusted application, in hex.")],
    product_id: Annotated[int, typer.Option("--product-id", min=0, max=0xFFFF, help="Its product id.")],
    device: Annotated[str | None, typer.Option("--device", help="IoT Hub device id to bind the anchor to.")] = None,
    minimum_security_version: Annotated[int, typer.Option("--minimum-security-version", min=0, max=0xFFFF)] = 1,
    freshness: Annotated[str, typer.Option("--freshness", help="nonce, beacon or unknown.")] = "unknown",
    out: Annotated[Path, typer.Option("--out", help="File to write; it must not exist.")] = Path("policy.toml"),
) -> None:
    """Write a commented policy for one platform and one trusted application.

    Example: edgeclave policy init --anchor attestation.pub.pem --class emulated --device edge01 --signer HEX
    --product-id 1
    """
    kind = next((name for name, kind in KINDS.items() if platform_class in kind.classes), None)
    if kind is None:
        raise ConfigurationError(
            "unknown-class",
            f"this release verifies no evidence of class {platform_class}",
            advice=f"use one of {', '.join(sorted(each for kind in KINDS.values() for each in kind.classes))}",
        )
    if not re.fullmatch(r"[0-9a-f]{64}", signer):
        raise ConfigurationError("bad-signer", "--signer must be 64 hex digits", advice="see `edgeclave ta inspect`")
    if freshness not in ("nonce", "beacon", "unknown"):
        raise ConfigurationError("bad-freshness", f"--freshness cannot be {freshness}", advice="see --help")
    text = _TEMPLATE.format(
        platform_class=json.dumps(platform_class),
        kind=kind,
        public_key=public_pem(load_public_key(anchor)).decode(),
        device="" if device is None else f"device = {json.dumps(device)}\n",
        signer=signer,
        product_id=product_id,
        minimum_security_version=minimum_security_version,
        freshness=freshness,
    )
    _write_new(out, text)
    load_policy(out)
    typer.echo(str(out))


def _write_new(path: Path, text: str) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(text)
    except FileExistsError as error:
        raise ConfigurationError(
            "file-exists", "there is already a policy", where=str(path), advice="choose another --out, or remove it"
        ) from error
    except OSError as error:
        raise ConfigurationError("cannot-write", f"cannot write: {error}", where=str(path)) from error
