"""`edgeclave deploy`: a deployment for one device, or for all that a condition matches, watched until it runs."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgeclave.cli.main import show_error
from edgeclave.cloud.connection import HUB_VARIABLE, HubConnection, connection_string, parse_hub
from edgeclave.cloud.deployment.configuration_plan import ConfigurationPlan, Wanted
from edgeclave.cloud.deployment.content import Template, TemplateError, read_template
from edgeclave.cloud.deployment.device_plan import DevicePlan
from edgeclave.cloud.deployment.hub import Hub
from edgeclave.cloud.deployment.lines import HumanLines, JsonLines, Lines
from edgeclave.cloud.deployment.watch import Look, Pace, watch
from edgeclave.cloud.lines import printable
from edgeclave.deployment.images import DEFAULT_PLATFORM
from edgeclave.errors import ConfigurationError, EdgeclaveError

DEFAULT_TEMPLATE = Path("deployment.template.json")
DEFAULT_TIMEOUT_SECONDS = 300.0
UNHEALTHY, NOT_READABLE = 1, 2


def deploy(
    template: Annotated[Path, typer.Argument(help="The deployment template.")] = DEFAULT_TEMPLATE,
    hub: Annotated[
        str | None,
        typer.Option(help=f"Service connection string, or @FILE that holds it. Default: the variable {HUB_VARIABLE}."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Deploy to this one device.")] = None,
    config_id: Annotated[
        str | None, typer.Option(help="Deploy to all that --target matches, under this id. A layer's file may name it.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="Which devices: tags.role = 'press'; * for all.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option(min=0, help="Of those that match a device, the deployment with the highest counts.")
    ] = None,
    layered: Annotated[bool, typer.Option("--layered", help="Refuse a template that is no layer.")] = False,
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A label; repeat for more.")] = None,
    platform: Annotated[
        str, typer.Option(help="Of images whose placeholder names none, e.g. arm64v8.")
    ] = DEFAULT_PLATFORM,
    ca: Annotated[Path | None, typer.Option(help="PEM certificates to trust instead of the public ones.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Apply without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to watch.")
    ] = DEFAULT_TIMEOUT_SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line; the last one says how it ended.")] = (
        False
    ),
) -> None:
    """Show what a deployment changes, apply it, and watch until every device runs it or it is known what does not.

    Variables come from .env beside the template, images from modules/*/module.json. IoT Hub never changes the content
    of an automatic deployment: a new content needs a new --config-id and a higher --priority. To go back, deploy the
    older template again: to the device, or under its own --config-id with a --priority above that of the newer one.
    A layered deployment (deployments/*.template.json) names its id, target, priority and labels itself; options here
    come before them.

    Exit codes: 0 every device runs it, or it targets none yet (or --dry-run); 1 refused, not applied, or not healthy in
    time; 2 what was given cannot be read or used.

    Example: edgeclave deploy --hub @hub.txt --device press-1
    """
    console = Console(highlight=False, emoji=False, soft_wrap=True)
    lines: Lines = JsonLines(console) if as_json else HumanLines(console)
    try:
        _check(device, config_id, target, ca)
        labels = _labels(label or [])
        connection = _connection(hub)
        read = read_template(template, platform=platform)
        wanted = None if device is not None else _wanted(read, config_id, target, priority, labels)
        _check_layer(read, layered, device)
    except ConfigurationError as error:
        for each in error.errors if isinstance(error, TemplateError) else [error]:
            show_error(each)
        raise typer.Exit(NOT_READABLE) from error
    client = Hub(connection, ca, _notice)
    plan = ConfigurationPlan(client, wanted) if wanted else DevicePlan(client, device or "", read.content)
    lines.difference(plan.title, plan.difference, [*read.notes, *plan.notes])
    if dry_run:
        return
    _apply(plan, lines, yes)
    ended = _watch(plan, lines, console, timeout)
    if not ended:
        raise typer.Exit(UNHEALTHY)


def _apply(plan: DevicePlan | ConfigurationPlan, lines: Lines, yes: bool) -> None:
    if plan.settled:
        return
    plan.check()
    if not yes:
        _confirm()
    try:
        plan.apply()
    except EdgeclaveError as error:
        if error.code == "changed-meanwhile":
            lines.difference(f"{plan.title}, as it is now", plan.difference, [])
        raise
    lines.applied(plan.title)


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise EdgeclaveError(
            "not-confirmed",
            "nobody can be asked here, so nothing was applied",
            where="standard input is not a terminal",
            advice="look at the difference, then run again with --yes",
        )
    if not typer.confirm("Apply this?", err=True):
        raise EdgeclaveError("not-confirmed", "nothing was applied")


def _watch(plan: DevicePlan | ConfigurationPlan, lines: Lines, console: Console, timeout: float) -> bool:
    with Console(stderr=True).status("Watching what the devices report ...") as status:

        def show(look: Look) -> None:
            lines.look(look)
            status.update(f"Watching: {look.healthy_devices} of {len(look.devices)} devices run it ...")

        try:
            ended = watch(plan, show, Pace(timeout))
        except KeyboardInterrupt:
            _notice("no longer watched; the deployment stays in the hub, and the same command watches it again")
            raise
    lines.ended(ended)
    return ended.healthy


def _check(device: str | None, config_id: str | None, target: str | None, ca: Path | None) -> None:
    if device is not None and (config_id or target):
        raise _usage("--device is for one device, --config-id and --target for all that match: give one or the other")
    if ca is not None and not ca.is_file():
        raise ConfigurationError("file-unreadable", "there is no such file", where=f"--ca {ca}")
    if ca is not None:
        try:
            ssl.create_default_context(cafile=ca)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigurationError(
                "bad-certificates", "holds no PEM certificates, or cannot be read", where=f"--ca {ca}"
            ) from error


def _check_layer(read: Template, layered: bool, device: str | None) -> None:
    if layered and not read.layered:
        raise _usage("the template is a whole deployment, no layer", where="--layered")
    if read.layered and device is not None:
        raise _usage("a layer needs automatic deployments below it: it cannot go to one device", where="--device")


def _wanted(
    read: Template, config_id: str | None, target: str | None, priority: int | None, labels: dict[str, str]
) -> Wanted:
    """What the command line says, else what stands in a layer's file."""
    name, condition = config_id or read.id, target or read.target
    if not name:
        raise _usage("give either --device, for one device, or --config-id, for all that --target matches")
    if not condition:
        raise _usage("--config-id needs --target: which devices, for example --target \"tags.role = 'press'\"")
    return Wanted(
        name,
        condition,
        read.priority if priority is None else priority,
        {**(read.labels or {}), **labels},
        read.content,
    )


def _connection(hub: str | None) -> HubConnection:
    text = connection_string(hub, variable=HUB_VARIABLE, option="--hub")
    return parse_hub(text, where="--hub" if hub else HUB_VARIABLE)


def _labels(given: list[str]) -> dict[str, str]:
    labels = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise _usage(f"{text!r} is not NAME=VALUE", where="--label")
        labels[name.strip()] = value.strip()
    return labels


def _usage(what: str, *, where: str = "command line") -> ConfigurationError:
    return ConfigurationError("bad-usage", what, where=where, advice="see `edgeclave deploy --help`")


def _notice(text: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False, emoji=False).print(f"notice: {printable(text)}", markup=False)
