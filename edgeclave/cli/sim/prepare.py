"""`edgeclave sim prepare`: what the sample's device needs before `sim up`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from edgeclave.cli.sim.options import DEFAULT_STATE, State
from edgeclave.demo.prepare import prepare


def prepare_command(state: State = DEFAULT_STATE) -> None:
    """Make what `sim up` needs for the sample: keys, its application built and signed, its readers, `.env`.

    What is there is kept; the application is built again when its source has changed. Run it in the root of a checkout.

    Example: edgeclave sim prepare && edgeclave sim up
    """
    console = Console(highlight=False, emoji=False, soft_wrap=True)
    project = Path.cwd()
    with console.status("Preparing keys and the signed trusted application ..."):
        prepared = prepare(
            project / ".edgeclave",
            project,
            lambda line: console.print(f"$ {line}", markup=False),
            variables=project / ".env",
            simulator_state=state.absolute(),
        )
    console.print(f"prepared: {prepared.folder}, {prepared.variables}", markup=False)
