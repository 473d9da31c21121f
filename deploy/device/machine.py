"""The machine that is set up: its files, its packages, and the commands that change it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_MUST_SUCCEED = ("apt-get", "groupadd", "iotedge", "usermod")


class Refused(Exception):  # noqa: N818 - what it says is for a person
    """Something that a person has to do first."""


@dataclass
class Machine:
    """The machine below a root folder. With another root than /, nothing is run and nobody's ownership is set."""

    root: Path

    @property
    def real(self) -> bool:
        return self.root == Path("/")

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def read(self, name: str) -> str:
        """What the file holds, "" without one. Old lists of users are not UTF-8: nothing that is looked for is lost."""
        try:
            return self.path(name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except PermissionError:
            raise Refused(f"{name} cannot be read: run as root") from None

    def write(self, name: str, text: str, *, mode: int = 0o644, owner: str = "root") -> None:
        """Whole or not at all; never readable by others for a moment."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
        try:
            if self.real:
                shutil.chown(new, owner, owner)
        except LookupError:
            new.unlink()
            raise Refused(f"there is no user {owner}: aziot-edge makes it when it is installed") from None
        new.replace(path)

    def mode(self, name: str) -> int:
        return self.path(name).stat().st_mode & 0o777

    def run(self, *command: str) -> str:
        """Standard output; "" below another root."""
        if not self.real:
            return ""
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        except FileNotFoundError:
            return ""
        if done.returncode and command[0] in _MUST_SUCCEED:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it gave no reason"]
            raise Refused(f"`{' '.join(command)}` failed: {last[0]}")
        return done.stdout

    def installed(self, packages: Iterable[str]) -> str | None:
        """The first of these packages that dpkg has."""
        entries = self.read("/var/lib/dpkg/status").split("\n\n")
        names = {
            match[1]
            for entry in entries
            if "\nStatus: install ok installed" in f"\n{entry}"
            for match in [re.search(r"^Package: (\S+)", entry, re.MULTILINE)]
            if match
        }
        return next((package for package in packages if package in names), None)
