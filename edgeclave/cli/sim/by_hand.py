"""`edgeclave sim take-over` and `give-back`: a deployed module run by hand, in a debugger for example."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from edgeclave.cli.sim.options import DEFAULT_STATE, Json, State
from edgeclave.simulator.control import ModuleOrder, ask

Module = Annotated[str, typer.Argument(help="A module of the deployment.")]


def take_over(module_id: Module, state: State = DEFAULT_STATE, as_json: Json = False) -> None:
    """Run a deployed module yourself, in a debugger for example: the simulator stops its own.

    The environment to run it with is written to env/MODULE.env in the simulator's state, for an `envFile` of VS Code or
    for the shell. It stays yours until `edgeclave sim give-back`.

    Example: edgeclave sim take-over sample_analytics
    """
    answer = asyncio.run(ask(state, "PUT", "/modules", ModuleOrder(module_id, by_hand=True)))
    path = _write(state / "env" / f"{module_id}.env", answer["environment"])
    if as_json:
        typer.echo(json.dumps({"moduleId": module_id, "file": str(path), "environment": answer["environment"]}))
        return
    typer.echo(f"{module_id} is yours to run, in the environment of {path}, for example")
    typer.echo(f"  (set -a; . {shlex.quote(str(path))}; python modules/{module_id}/main.py)")


def give_back(module_id: Module, state: State = DEFAULT_STATE) -> None:
    """Let the simulator run a module again that was taken over.

    Example: edgeclave sim give-back sample_analytics
    """
    asyncio.run(ask(state, "PUT", "/modules", ModuleOrder(module_id, by_hand=False)))


def _write(path: Path, environment: Mapping[str, str]) -> Path:
    """A file that the shell and VS Code read alike, for its owner only: a deployment may put secrets there."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(f"{name}={shlex.quote(value)}\n" for name, value in environment.items())
    return path
