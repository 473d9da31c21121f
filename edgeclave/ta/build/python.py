"""Builds a Python trusted application into a WebAssembly component with componentize-py.

The application's modules are imported once, at build time; what they then hold in memory is what every instance starts
from. Only the folder of the application, the guest SDK and Python's standard library can be imported: what happens to
be installed on the machine is hidden, so that it cannot slip into what is signed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeclave.errors import ConfigurationError, PackageError
from edgeclave.ta.build.output import write_built

_TA = Path(__file__).parents[1]
WIT_FOLDER = _TA / "wit"
WORLD = "trusted-app"
GUEST_PYTHON = _TA / "guest" / "python"
"""Put it on sys.path to unit-test a Python trusted application as plain Python."""

MAX_BUILD_SECONDS = 300  # a build takes about ten; an application that loops while it is imported would never end
_NOT_SOURCES = ("__pycache__", ".*", "build", "tests", "*.wasm", "*.ta", "ta.toml")
_ENTRY_NAME = "edgeclave_entry"
_ENTRY = """\
from edgeclave_ta import component

try:
    import app as application
except SystemExit as ended:
    raise RuntimeError("the application ends itself while it is imported") from ended

class WitWorld(component.Component):
    def __init__(self):
        super().__init__(application)
"""
_COMPONENTIZE = "import componentize_py; componentize_py.script()"


def build_python(source_dir: Path, out_wasm: Path, progress: Callable[[str], None] | None = None) -> None:
    """Builds `source_dir/app.py` into the component `out_wasm`; `progress` is told each step as it begins.

    Raises:
        ConfigurationError: `no-source`, `source-unreadable`, `missing-extra`, `build-not-written`.
        PackageError: `source-fails` with the application's own traceback, `build-failed`.
    """
    tell = progress or (lambda _: None)
    if not (source_dir / "app.py").is_file():
        raise ConfigurationError(
            "no-source",
            "there is no app.py to build",
            where=str(source_dir),
            advice="name the folder of a trusted application: app.py beside ta.toml",
        )
    builder_version()
    with tempfile.TemporaryDirectory(prefix="edgeclave-build-") as folder:
        stage = Path(folder)
        tell("collecting sources")
        _collect(source_dir, stage / "app")
        shutil.copytree(GUEST_PYTHON, stage / "sdk", ignore=shutil.ignore_patterns("__pycache__", "testing.py"))
        (stage / "sdk" / f"{_ENTRY_NAME}.py").write_text(_ENTRY)
        tell("importing the application and building its component")
        _componentize(stage, source_dir)
        write_built(stage / "out.wasm", out_wasm)


def _collect(source_dir: Path, stage: Path) -> None:
    try:
        shutil.copytree(source_dir, stage, ignore=shutil.ignore_patterns(*_NOT_SOURCES))
    except shutil.Error as error:
        path, _, why = error.args[0][0]
        raise ConfigurationError(
            "source-unreadable", f"a source file cannot be read: {why}", where=str(path)
        ) from error


def builder_version() -> str:
    """Release of componentize-py. Raises ConfigurationError `missing-extra`."""
    try:
        return version("componentize-py")
    except PackageNotFoundError:
        raise ConfigurationError(
            "missing-extra", "componentize-py is not installed", advice="install `edgeclave[build]`"
        ) from None


def _componentize(stage: Path, source_dir: Path) -> None:
    # componentize-py adds the site-packages of the virtual environment it is told of: give it an empty one.
    nothing = stage / "nothing"
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (nothing / "lib" / python / "site-packages").mkdir(parents=True)
    arguments = ["-q", "-d", str(WIT_FOLDER), "-w", WORLD, "componentize", "-p", "app", "-p", "sdk", "-o", "out.wasm"]
    try:
        finished = subprocess.run(
            [sys.executable, "-c", _COMPONENTIZE, *arguments, _ENTRY_NAME],
            cwd=stage,
            env={**os.environ, "VIRTUAL_ENV": str(nothing), "RUST_BACKTRACE": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=MAX_BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PackageError(
            "build-failed",
            f"building took longer than {MAX_BUILD_SECONDS} seconds",
            where=str(source_dir),
            advice="look for a loop in what the application does while it is imported",
        ) from None
    if finished.returncode != 0:
        raise _build_error(finished.stdout, source_dir)


def _build_error(output: str, source_dir: Path) -> PackageError:
    said, _, _ = output.partition("\n\nCaused by:")
    said = said.partition("AssertionError: ")[2].strip() or output.strip()
    at_import = re.match(r"Traceback \(most recent call last\):\n(?P<frames>.*)\n(?P<last>\S[^\n]*)\Z", said, re.DOTALL)
    if at_import is None:
        return PackageError(
            "build-failed",
            f"componentize-py failed: {said[-2000:]}",
            where=str(source_dir),
            advice="see that app.py imports nothing but its own folder, edgeclave_ta and Python's standard library",
        )
    frames = [frame for frame in re.split(r"(?=^  File )", at_import["frames"], flags=re.MULTILINE) if "/0/" in frame]
    own = "".join(frames).replace('"/0/', f'"{source_dir}{os.sep}').rstrip()
    where = re.findall(r'"([^"]+)", line (\d+)', own)
    traceback = f"\n{own}\n{at_import['last']}" if own else ""
    return PackageError(
        "source-fails",
        f"the application fails while it is imported: {at_import['last']}{traceback}",
        where=":".join(where[-1]) if where else str(source_dir / "app.py"),
        advice=_ADVICE.get(at_import["last"].partition(":")[0], "correct this line and build again"),
    )


_ADVICE = {
    "ModuleNotFoundError": "put the module beside app.py; only it, edgeclave_ta and Python's standard library are there"
}
