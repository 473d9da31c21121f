"""`${MODULES.<name>}` and `${MODULEDIR<path>}`: image names from each module's `module.json`.

An image is `<repository>:<version>-<platform>`. A suffix chooses the platform: `.debug` is `<default>.debug`,
`.arm64v8` is itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edgeclave.deployment.variables import expand
from edgeclave.errors import ConfigurationError

DEFAULT_PLATFORM = "amd64"
MODULES_FOLDER = "modules"
MODULE_FILE = "module.json"
_REFERENCE = re.compile(
    r"\$\{(?:MODULES\.(?P<name>[^.{}<>]+)|MODULEDIR<(?P<folder>[^<>]+)>)(?P<platform>\.[^{}<>]+)?\}"
)


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
    """What the placeholders of one template stand for."""

    root: Path
    values: Mapping[str, str]
    folders: dict[str, Path] = field(default_factory=dict)  # image -> the module's source folder
    undefined: list[str] = field(default_factory=list)

    def expand(self, text: str, where: str) -> str:
        """Replaces every placeholder in the text of a template.

        Raises:
            ConfigurationError: `no-such-module`, `bad-module-json`, `no-such-platform`.
        """
        return _REFERENCE.sub(lambda match: self._image(match, where), text)

    def _image(self, match: re.Match[str], where: str) -> str:
        name, folder_name = match["name"], match["folder"]
        folder = self.root / MODULES_FOLDER / name if name else self.root / folder_name
        if not (folder / MODULE_FILE).is_file():
            raise ConfigurationError(
                "no-such-module",
                f"{match[0]} names a module that is not there",
                where=where,
                advice=f"there is no {folder / MODULE_FILE}; known modules: {', '.join(self._known()) or 'none'}",
            )
        module = self._read(folder / MODULE_FILE)
        platform = (match["platform"] or "").removeprefix(".")
        platform = f"{DEFAULT_PLATFORM}.debug" if platform == "debug" else platform or DEFAULT_PLATFORM
        if platform not in module.image.tag.platforms:
            raise ConfigurationError(
                "no-such-platform",
                f"{match[0]} wants platform {platform!r}, which the module does not have",
                where=str(folder / MODULE_FILE),
                advice=f"it has {', '.join(module.image.tag.platforms) or 'none'}",
            )
        image = f"{module.image.repository}:{module.image.tag.version}-{platform}"
        self.folders[image] = folder
        return image

    def _read(self, path: Path) -> _Module:
        text, undefined = expand(path.read_text(encoding="utf-8"), self.values)
        self.undefined += [name for name in undefined if name not in self.undefined]
        try:
            return msgspec.json.decode(text, type=_Module)
        except msgspec.DecodeError as error:
            raise ConfigurationError(
                "bad-module-json",
                f"is not a module description: {error}",
                where=str(path),
                advice="it needs image.repository, image.tag.version and image.tag.platforms",
            ) from error

    def _known(self) -> list[str]:
        return sorted(path.parent.name for path in (self.root / MODULES_FOLDER).glob(f"*/{MODULE_FILE}"))
