"""Builds a C trusted application into a core module with the C compiler of the `ziglang` package.

The same sources give the same bytes, wherever they lie and whenever they are built: the compiler is pinned, runs in the
folder of the application with relative names in sorted order, and no path of the machine, time or debug information
goes in. So two people who build the same sources get the same unique_id.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeclave.errors import ConfigurationError, PackageError
from edgeclave.ta.build.output import write_built
from edgeclave.ta.core_module import check_core_module

GUEST_C = Path(__file__).parents[1] / "guest" / "c"
"""The C guest SDK: `edgeclave_ta.h` and what is built with every application."""

MAX_BUILD_SECONDS = 300  # a build takes a tenth of a second; the very first also prepares the compiler
MAX_SOURCES = 1_000
STACK_BYTES = 256 << 10
_NOT_SOURCES = ("build", "tests")
_FLAGS = (
    "-target", "wasm32-freestanding", "-std=c17", "-Wall", "-Wextra", "-Werror=date-time", "-fno-sanitize=all",
    "-ffp-contract=off",  # the same numbers on every target
    "-fvisibility=hidden", "-I{sdk}",
    "-Wl,--no-entry", "-Wl,--gc-sections",
    f"-Wl,-z,stack-size={STACK_BYTES}",  # this linker puts it first, so that a stack that overflows traps
)  # fmt: skip
_RELEASE = ("-O2", "-g0", "-s", "-ffile-prefix-map={sdk}=edgeclave")
_DEBUG = ("-O0", "-g")
_MESSAGE = re.compile(
    r"^(?P<file>[^:\n]+):(?P<line>\d+):(?P<column>\d+): (?:fatal )?error: (?P<what>.*)$", re.MULTILINE
)


def build_c(
    source_dir: Path, out_wasm: Path, progress: Callable[[str], None] | None = None, *, debug: bool = False
) -> None:
    """Builds all C sources under `source_dir` into the core module `out_wasm`; `progress` is told each step.

    `debug` keeps what a debugger needs and optimises nothing; such a build is another unique_id.

    Raises:
        ConfigurationError: `no-source`, `missing-extra`, `build-not-written`.
        PackageError: `source-fails` with the compiler's words, `build-failed`, and what `check_core_module` refuses.
    """
    tell = progress or (lambda _: None)
    sources = c_sources(source_dir)
    if not sources:
        raise ConfigurationError(
            "no-source",
            "there is no C source to build",
            where=str(source_dir),
            advice="name the folder of a trusted application: app.c beside ta.toml",
        )
    c_compiler_version()
    cache = compiler_cache()
    first = "" if cache.is_dir() else ", which prepares itself on its first use"
    with tempfile.TemporaryDirectory(prefix="edgeclave-build-") as folder:
        made = Path(folder) / "out.wasm"
        tell(f"compiling C{first}")
        said = _compile(source_dir.resolve(), sources, made, cache, debug=debug)
        if said:
            tell(said)
        check_core_module(made.read_bytes())
        write_built(made, out_wasm)


def c_sources(source_dir: Path) -> list[str]:
    """The C sources of an application, relative to its folder, sorted; nothing hidden, of `build` or of `tests`."""
    found: list[str] = []
    for parent, folders, names in os.walk(source_dir):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _NOT_SOURCES)
        relative = Path(parent).relative_to(source_dir)
        found += [(relative / name).as_posix() for name in names if name.endswith(".c") and not name.startswith(".")]
        if len(found) > MAX_SOURCES:
            raise ConfigurationError(
                "no-source",
                f"there are more than {MAX_SOURCES} C sources",
                where=str(source_dir),
                advice="name the folder of one trusted application",
            )
    return sorted(found)


def c_compiler_version() -> str:
    """Release of the C compiler. Raises ConfigurationError `missing-extra`."""
    try:
        return version("ziglang")
    except PackageNotFoundError:
        raise ConfigurationError(
            "missing-extra", "ziglang, the C compiler, is not installed", advice="install `edgeclave[build-c]`"
        ) from None


def compiler_cache() -> Path:
    """Where the compiler keeps what it made, so that only the first build is slow."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111  (never raises)
    if not base.is_absolute():  # a user without a home, as in many containers
        base = Path(".edgeclave/cache").absolute()
    return base / "edgeclave" / f"ziglang-{c_compiler_version()}"


def _compile(source_dir: Path, sources: list[str], made: Path, cache: Path, *, debug: bool) -> str:
    """Returns the compiler's warnings."""
    flags = [flag.format(sdk=GUEST_C) for flag in (*_FLAGS, *(_DEBUG if debug else _RELEASE))]
    sdk = sorted(str(path) for path in GUEST_C.glob("*.c"))
    names = [f"./{name}" for name in sources]  # so that no name is taken for an option
    command = [*flags, "-I.", "-o", str(made), *names, *sdk]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        finished = subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", *command],
            cwd=source_dir,
            env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(cache), "ZIG_LOCAL_CACHE_DIR": str(cache), "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=MAX_BUILD_SECONDS,
            check=False,
        )
    except OSError as error:
        raise ConfigurationError(
            "build-not-written",
            f"the compiler's cache cannot be used: {error.strerror}",
            where=str(error.filename or cache),
            advice="set XDG_CACHE_HOME to a folder that can be written",
        ) from error
    except subprocess.TimeoutExpired:
        raise PackageError(
            "build-failed", f"compiling took longer than {MAX_BUILD_SECONDS} seconds", where=str(source_dir)
        ) from None
    if finished.returncode != 0:
        raise _error(finished.stdout, source_dir)
    return finished.stdout.strip()


def _error(output: str, source_dir: Path) -> PackageError:
    message = _MESSAGE.search(output)
    if message is not None:
        file = source_dir / message["file"]
        return PackageError(
            "source-fails",
            f"the compiler refuses it: {message['what']}\n{output.strip()[-4000:]}",
            where=f"{file.resolve()}:{message['line']}:{message['column']}",
            advice="correct this line and build again",
        )
    missing = re.search(r"undefined symbol: (?P<name>\S+)", output)
    if missing is not None:
        return PackageError(
            "source-fails",
            f"nothing defines {missing['name']}: {output.strip()[-2000:]}",
            where=str(source_dir),
            advice="there is no C library in a TEE; edgeclave_ta.h has what a trusted application needs",
        )
    return PackageError(
        "build-failed",
        f"the C compiler failed: {output.strip()[-2000:]}",
        where=str(source_dir),
        advice="see that the sources need nothing but the compiler's own headers and edgeclave_ta.h",
    )
