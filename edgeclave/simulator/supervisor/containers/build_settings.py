"""How a module's image is built: its module.json, as IoT Edge's own tools read it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeclave.deployment.images import MODULE_FILE
from edgeclave.errors import ConfigurationError


@dataclass(frozen=True)
class BuildSettings:
    """Absolute paths; `arguments` are the Dockerfile's ARGs."""

    image: str
    dockerfile: Path
    context: Path
    arguments: Mapping[str, str]
    target: str | None


class _Tag(msgspec.Struct):
    platforms: dict[str, str]


class _Image(msgspec.Struct, rename="camel"):
    tag: _Tag
    build_options: list[str] = []
    context_path: str = "."


class _Module(msgspec.Struct):
    image: _Image


def read_build_settings(image: str, folder: Path) -> BuildSettings:
    """Args:
        image: its name; the platform is what it ends with.
        folder: of the module.

    Raises:
        ConfigurationError: `bad-module-json`.
    """
    path = folder / MODULE_FILE
    try:
        settings = msgspec.json.decode(path.read_bytes(), type=_Module).image
    except (OSError, msgspec.DecodeError) as error:
        raise _bad(path, f"is not a module description: {error}", "it needs image.tag.platforms") from error
    ending = [platform for platform in settings.tag.platforms if image.endswith(f"-{platform}")]
    if not ending:
        raise _bad(path, f"has no platform of {image}", f"it has {', '.join(settings.tag.platforms) or 'none'}")
    dockerfile = (folder / settings.tag.platforms[max(ending, key=len)]).resolve()
    context = (folder / settings.context_path).resolve()
    if not dockerfile.is_file() or not context.is_dir():
        missing = context if dockerfile.is_file() else dockerfile
        raise _bad(path, f"names {missing}, which is not there", "correct image.tag.platforms or image.contextPath")
    arguments, target = _options(settings.build_options, path)
    return BuildSettings(image, dockerfile, context, arguments, target)


def _options(given: list[str], path: Path) -> tuple[dict[str, str], str | None]:
    """The options of `docker build` that make another image; what is left out would make a wrong one."""
    parser = argparse.ArgumentParser(exit_on_error=False, add_help=False, allow_abbrev=False)
    parser.add_argument("--build-arg", action="append", default=[])
    parser.add_argument("--target")
    try:
        options, unknown = parser.parse_known_args(shlex.split(" ".join(given)))
    except (argparse.ArgumentError, ValueError) as error:
        raise _bad(path, f"has build options that cannot be read: {error}", "see image.buildOptions") from error
    arguments = dict(argument.partition("=")[::2] for argument in options.build_arg)
    if unknown or not all(arguments):
        wrong = unknown[0] if unknown else "--build-arg"
        raise _bad(path, f"has the build option {wrong!r}, which is not known here", "use --build-arg or --target")
    return arguments, options.target


def _bad(path: Path, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError("bad-module-json", what, where=str(path), advice=advice)
