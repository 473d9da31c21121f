"""`${MODULES.<name>}` and `${MODULEDIR<path>}`: image names from each module's `module.json`.

An image is `<repository>:<version>-<platform>`. A suffix chooses the platform: `.debug` is `<default>.debug`,
`.arm64v8` is itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edgeclave.deployment import located_json
from edgeclave.deployment.document import nearest
from edgeclave.deployment.variables import expand
from edgeclave.errors import ConfigurationError

DEFAULT_PLATFORM = "amd64"
MODULES_FOLDER = "modules"
MODULE_FILE = "module.json"
REFERENCE = re.compile(r"\$\{(?:MODULES\.(?P<name>[^.{}<>]+)|MODULEDIR<(?P<folder>[^<>]+)>)(?P<platform>\.[^{}<>]+)?\}")


class _Tag(msgspec.Struct):
    version: str
    platforms: dict[str, str]


class _Image(msgspec.Struct):
    repository: str
    tag: _Tag


class _Module(msgspec.Struct):
    """Other members of module.json are for the tools that build images."""

    image: _Image


@dataclass
class Images:
    """What the placeholders of one template stand for.

    Args:
        root: the folder of the solution, where `modules/` is.
        template_folder: where the paths of `${MODULEDIR<path>}` begin.
        values: of variables in module.json.
        platform: of images whose placeholder names none.
    """

    root: Path
    template_folder: Path
    values: Mapping[str, str]
    platform: str = DEFAULT_PLATFORM
    folders: dict[str, Path] = field(default_factory=dict)  # image -> the module's source folder
    undefined: dict[str, Path] = field(default_factory=dict)  # variable -> the module.json that names it
    problems: dict[str, ConfigurationError] = field(default_factory=dict)  # placeholder -> why it stands for nothing

    def expand(self, text: str) -> str:
        """Replaces every placeholder in the text of a template; one that stands for nothing stays and is a problem:
        `no-such-module`, `no-such-platform`, or `bad-json` and `bad-module-json` of its module.json.
        """
        return REFERENCE.sub(self._replaced, text)

    def _replaced(self, match: re.Match[str]) -> str:
        try:
            return self._image(match)
        except ConfigurationError as error:
            self.problems[match[0]] = error
            return match[0]

    def _image(self, match: re.Match[str]) -> str:
        name, folder_name = match["name"], match["folder"]
        folder = self.root / MODULES_FOLDER / name if name else self.template_folder / folder_name
        if not (folder / MODULE_FILE).is_file():
            known = sorted(path.parent.name for path in (self.root / MODULES_FOLDER).glob(f"*/{MODULE_FILE}"))
            near = nearest(name or Path(folder_name).name, known)
            meant = f"did you mean {near!r}?" if near else f"known modules: {', '.join(known) or 'none'}"
            raise ConfigurationError(
                "no-such-module",
                f"{match[0]} names a module that is not there",
                advice=f"there is no {folder / MODULE_FILE}; {meant}",
            )
        module = self._read(folder / MODULE_FILE)
        platform = (match["platform"] or "").removeprefix(".")
        platform = f"{self.platform}.debug" if platform == "debug" else platform or self.platform
        if platform not in module.image.tag.platforms:
            raise ConfigurationError(
                "no-such-platform",
                f"{match[0]} wants platform {platform!r}, which the module does not have",
                advice=f"{folder / MODULE_FILE} has {', '.join(module.image.tag.platforms) or 'none'}",
            )
        image = f"{module.image.repository}:{module.image.tag.version}-{platform}"
        self.folders[image] = Path(os.path.normpath(folder.absolute()))
        return image

    def _read(self, path: Path) -> _Module:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError("bad-module-json", f"cannot be read: {error}", where=str(path)) from error
        expanded, undefined = expand(text, self.values)
        for name in undefined:
            self.undefined.setdefault(name, path)
        try:
            return msgspec.convert(located_json.read(expanded, str(path)).value, _Module)
        except msgspec.ValidationError as error:
            raise ConfigurationError(
                "bad-module-json",
                f"is not a module description: {error}",
                where=str(path),
                advice="it needs image.repository, image.tag.version and image.tag.platforms",
            ) from error
