"""Ctrl-C before a command has begun."""

from __future__ import annotations

import signal
import subprocess
import sys

# Interrupts itself when what the command line is written with is looked for.
_SCRIPT = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv = ["edgeclave", "--version"]
{before}
from edgeclave.__main__ import main
main()
"""


def started(before: str) -> subprocess.CompletedProcess[str]:
    script = _SCRIPT.format(before=before)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


def test_it_ends_without_a_traceback() -> None:
    ended = started("")
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


def test_where_interruptions_are_ignored_they_stay_ignored() -> None:
    ended = started("signal.signal(signal.SIGINT, signal.SIG_IGN)")
    assert (ended.returncode, ended.stderr) == (0, "")
