"""`edgeclave deployment`: what a deployment says, before anybody applies it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from edgeclave.cli.main import show_error
from edgeclave.deployment import Finding, check_deployment
from edgeclave.deployment.images import DEFAULT_PLATFORM
from edgeclave.errors import ConfigurationError

app = typer.Typer(help="Deployment templates, manifests and layered deployments.")
MISTAKES, NOT_READABLE = 1, 2
_STYLES = {"error": "bold red", "warning": "yellow"}
_USUAL = ("deployment*.template.json", "deployments/*.template.json")


@app.callback()
def _group() -> None:
    """Deployment templates, manifests and layered deployments."""


@app.command()
def check(
    templates: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[TEMPLATE]...", help="Default: deployment*.template.json, deployments/*.template.json."
        ),
    ] = None,
    platform: Annotated[
        str, typer.Option(help="Of images whose placeholder names none, e.g. arm64v8.")
    ] = DEFAULT_PLATFORM,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find what is wrong in deployment templates, manifests and layered deployments: with file, line and what to do.

    Exit codes: 0 nothing, or warnings only; 1 mistakes; 2 a file cannot be read.

    Example: edgeclave deployment check deployment.template.json
    """
    try:
        usual = [path for pattern in _USUAL for path in sorted(Path().glob(pattern))]
        files = templates or usual or [Path("deployment.template.json")]
        # once each: a module.json that several of them use has its findings in all of them
        found = dict.fromkeys(each for file in files for each in check_deployment(file, platform=platform))
        findings = list(found)
    except ConfigurationError as error:
        show_error(error)
        raise typer.Exit(NOT_READABLE) from error
    errors = sum(finding.severity == "error" for finding in findings)
    if as_json:
        typer.echo(msgspec.json.encode(_summary(files, findings, errors)))
    else:
        _print(files, findings, errors)
    if errors:
        raise typer.Exit(MISTAKES)


def _summary(files: list[Path], findings: list[Finding], errors: int) -> dict[str, Any]:
    return {
        "files": [str(file) for file in files],
        "errors": errors,
        "warnings": len(findings) - errors,
        "findings": findings,
    }


def _print(files: list[Path], findings: list[Finding], errors: int) -> None:
    console = Console(highlight=False, soft_wrap=True, emoji=False)  # `:100:` is a line, not an emoji
    for finding in findings:
        line = f":{finding.line}" if finding.line else ""
        console.print(f"{finding.file}{line}: ", end="", markup=False)
        console.print(finding.severity, style=_STYLES[finding.severity], end="")
        console.print(f" [{finding.code}]: {finding.what}", markup=False)
        if finding.path:
            console.print(f"  where: {finding.path}", markup=False)
        if finding.advice:
            console.print(f"  do:    {finding.advice}", markup=False)
    names = ", ".join(map(str, files))
    console.print(f"{names}: {_count(errors, 'mistake')}, {_count(len(findings) - errors, 'warning')}", markup=False)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
