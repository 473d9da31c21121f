"""`edgeclave ta`: everything a developer of trusted applications does, one file per command."""

from __future__ import annotations

import typer

from edgeclave.cli.ta.build import build
from edgeclave.cli.ta.debug import debug
from edgeclave.cli.ta.inspect import inspect
from edgeclave.cli.ta.keys import keys
from edgeclave.cli.ta.new import new
from edgeclave.cli.ta.registry import pull, push
from edgeclave.cli.ta.run import run
from edgeclave.cli.ta.sign import sign
from edgeclave.cli.ta.test import run_tests

app = typer.Typer(help="Trusted applications: begin, build, run, test, debug, sign, inspect, push.")

for command in (new, build, run, debug, sign, inspect, push, pull, keys):
    app.command()(command)
app.command("test", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(run_tests)
