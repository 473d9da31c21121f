"""`edgeclave policy`: what a relying party accepts."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgeclave.cli.appraising import appraise, show
from edgeclave.cli.unreadable import appraise_hcl_report, not_readable
from edgeclave.cli.verify_inputs import read_endorsements, read_input, read_nonce, read_time
from edgeclave.errors import ConfigurationError
from edgeclave.evidence.anchors import PLATFORM_CLASSES
from edgeclave.evidence.kinds import KINDS
from edgeclave.evidence.policy_file import load_policy, read_public_key
from edgeclave.evidence.tee import Kind

_VERIFIED = [name for name in PLATFORM_CLASSES if any(name in kind.classes for kind in KINDS.values())]
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

# Trust anchors, each of one kind and one class. One of:
#   public_key: a platform's own key, a file next to this one or PEM text
#   root:       a vendor's root, built in by name
#   test_root:  the root of stand-in hardware; its class can only be "emulated"
{anchor}
# Reference values of the measured code, per kind of evidence; there is no default. One that matches is enough.
{runtime}
{tcb}# Trusted applications: signer_id and product_id, or one unique_id.
[[trusted_apps]]
signer_id = "{signer}"
product_id = {product_id}
minimum_security_version = {minimum_security_version}

# The oldest recipient set, per output, that results may be sealed to.
[recipients.minimum_version]
# anomalies = 1
"""

_TCB = """\
# TCB statuses accepted besides "UpToDate", each until the end of a day (UTC) and with no open advisories but the named.
# [[tcb.{kind}]]
# status = "SWHardeningNeeded"
# until = 2027-03-31
# advisories = ["INTEL-SA-00615"]

"""


@app.callback()
def policy() -> None:
    """Policies: which platforms, runtimes and trusted applications to accept."""


@app.command()
def explain(
    evidence: Annotated[
        Path, typer.Argument(help="An evidence collection, or a raw quote or report; - for standard input.")
    ],
    policy: Annotated[Path, typer.Option(help="The policy file.")],
    nonce: Annotated[str | None, typer.Option(help="The nonce it was asked for with, in hex.")] = None,
    at: Annotated[
        str | None, typer.Option("--at", "--now", metavar="TIME", help="Explain as of then. Default: now.")
    ] = None,
    endorsements: Annotated[
        Path | None, typer.Option(metavar="DIR|FILE", help="Endorsements to use instead of the imported ones.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell point by point why evidence passes or fails: all points, not only the first that fails.

    What stands behind a failed point is what the evidence says, not what it proves.

    Exit codes: 0 it passes; 1 it fails, or something cannot be read.

    Example: edgeclave policy explain evidence.cbor --policy policy.toml
    """
    data, loaded, known, now = read_input(evidence), load_policy(policy), read_endorsements(endorsements), read_time(at)
    outcome = appraise(data, loaded, read_nonce(nonce), now, known) or appraise_hcl_report(data, loaded, now, known)
    if outcome is None:
        raise not_readable(data, evidence)
    show(outcome, as_json)
    if not outcome.accepted:
        raise typer.Exit(1)


@app.command()
def init(
    platform_class: Annotated[str, typer.Option("--class", help=f"One of {', '.join(_VERIFIED)}.")],
    signer: Annotated[str, typer.Option("--signer", help="signer_id of the trusted application, in hex.")],
    product_id: Annotated[int, typer.Option("--product-id", min=0, max=0xFFFF, help="Its product id.")],
    anchor: Annotated[
        str | None,
        typer.Option("--anchor", help="Attestation key of the platform (a PEM file), or a vendor's root by name."),
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help=f"One of {', '.join(KINDS)}. Default: by class.")] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option("--runtime", metavar="NAME=VALUE", help="What is measured, e.g. mrenclave=HEX; may be repeated."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="IoT Hub device id to bind the platform to.")] = None,
    minimum_security_version: Annotated[int, typer.Option("--minimum-security-version", min=0, max=0xFFFF)] = 1,
    freshness: Annotated[str, typer.Option("--freshness", help="nonce, beacon or unknown.")] = "unknown",
    out: Annotated[Path, typer.Option("--out", help="File to write; it must not exist.")] = Path("policy.toml"),
) -> None:
    """Write a commented policy for one platform and one trusted application.

    Example: edgeclave policy init --anchor attestation.pub.pem --class emulated --device edge01 --signer HEX
    --product-id 1

    Example: edgeclave policy init --class sgx --runtime mrenclave=HEX --signer HEX --product-id 1
    """
    known = _kind(kind, platform_class)
    if not re.fullmatch(r"[0-9a-f]{64}", signer):
        raise ConfigurationError(
            "bad-signer",
            "it must be 64 hex digits",
            where=f"--signer {signer[:80]}",
            advice="see `edgeclave ta inspect`",
        )
    if freshness not in ("nonce", "beacon", "unknown"):
        raise ConfigurationError(
            "bad-freshness",
            f"it cannot be {freshness[:80]!r}",
            where="--freshness",
            advice="use nonce, beacon or unknown",
        )
    text = _TEMPLATE.format(
        platform_class=json.dumps(platform_class),
        anchor=_anchor_text(known, platform_class, anchor, device),
        runtime=_runtime_text(known, runtime or []),
        tcb=_TCB.format(kind=known.name) if known.roots else "",
        signer=signer,
        product_id=product_id,
        minimum_security_version=minimum_security_version,
        freshness=freshness,
    )
    _write_new(out, text)
    try:
        load_policy(out)
    except ConfigurationError as error:
        out.unlink()
        where = error.where.removeprefix(f"{out}: ")
        raise ConfigurationError(error.code, error.what, where=where, advice=error.advice) from error
    typer.echo(str(out))


def _kind(name: str | None, platform_class: str) -> Kind:
    """The kind that was named, or the first whose anchors may lie in the class."""
    fitting = [kind for kind in KINDS.values() if platform_class in kind.classes and name in (None, kind.name)]
    if not fitting:
        raise ConfigurationError(
            "unknown-class",
            f"this release verifies no evidence of class {platform_class}{f' and kind {name}' if name else ''}",
            where=f"--class {platform_class}" + (f" --kind {name}" if name else ""),
            advice="use one of "
            + ", ".join(f"{kind.name} ({', '.join(sorted(kind.classes))})" for kind in KINDS.values()),
        )
    return fitting[0]


def _anchor_text(kind: Kind, platform_class: str, anchor: str | None, device: str | None) -> str:
    lines = [f'[[anchors]]\nkind = "{kind.name}"\nclass = {json.dumps(platform_class)}']
    if kind.pins is None or anchor in kind.roots:
        name = anchor or next(iter(kind.roots))
        lines.append(f"root = {json.dumps(name)}\n")
        lines.append(
            "# Platforms under this root, bound at enrolment: device id = platform_instance, as `edgeclave verify`"
        )
        lines.append("# shows it. Messages of devices that are not bound here are refused.")
        lines.append(f'[devices]\n# {json.dumps(device or "edge01")} = ["HEX"]')
    elif anchor is None:
        raise ConfigurationError(
            "no-anchor", "the platform's attestation key is missing", where="--anchor", advice="name it, a PEM file"
        )
    else:
        key = read_public_key(f"--anchor {anchor}", anchor, Path())
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        lines.append(f"public_key = '''\n{pem}'''")
        if device is not None:
            lines.append("# Messages from another IoT Hub device are refused.")
            lines.append(f"device = {json.dumps(device)}")
    return "\n".join(lines) + "\n"


def _runtime_text(kind: Kind, values: list[str]) -> str:
    if not values and kind.this_release is not None:
        comment = (
            '# "this-release": what the installed release of edgeclave measures. Otherwise SHA-256 digests in hex.'
        )
        return f'{comment}\n[runtime]\n{kind.name} = ["this-release"]\n'
    if not values:
        raise ConfigurationError(
            "no-runtime",
            f"what the runtime of {kind.title} measures is missing; there is no default",
            where="--runtime",
            advice="name "
            + ", or ".join(" ".join(f"--runtime {name}=VALUE" for name in sorted(names)) for names in kind.identifying),
        )
    lines = [f"[[runtime.{kind.name}]]"]
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not re.fullmatch(r"[a-z0-9_]+", name):
            raise ConfigurationError(
                "bad-runtime", "not NAME=VALUE", where=f"--runtime {value[:80]}", advice="for example mrenclave=HEX"
            )
        lines.append(f"{name} = {text if text.isdigit() and len(text) < 16 else json.dumps(text)}")
    return "\n".join(lines) + "\n"


def _write_new(path: Path, text: str) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(text)
    except FileExistsError as error:
        raise ConfigurationError(
            "file-exists", "there is already a policy", where=str(path), advice="choose another --out, or remove it"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            "cannot-write",
            f"cannot write: {error.strerror}",
            where=str(path),
            advice="name a place that you may write with --out",
        ) from error
