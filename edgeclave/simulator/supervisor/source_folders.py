"""Which module of the solution an image is made from, also of versions that are newer than the simulator's start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from edgeclave.deployment import generate
from edgeclave.errors import ConfigurationError


class SourceFolders(Mapping[str, Path]):
    """Image -> source folder.

    An image that is not known makes it read the template, each module.json and .env again: `edgeclave deploy` may bring
    a version that was not there before.
    """

    def __init__(self, template: Path, known: Mapping[str, Path]) -> None:
        self._template = template
        self._known = dict(known)

    def __getitem__(self, image: str) -> Path:
        if image not in self._known:
            with suppress(ConfigurationError):  # told to whoever deploys it; here it is only one image less
                self._known |= generate(self._template).folders
        return self._known[image]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
