"""What a check found: which file, which line, which place in it, what is wrong and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec

from edgeclave.deployment.twin_limits import Path, place
from edgeclave.errors import ConfigurationError

TOP = "top level"
UNDEFINED = "undefined-variable"
_WHERE = re.compile(r"(.*?)(?:, line ([0-9]+)(?:, (.*))?)?", re.DOTALL)
_ABOUT_REFERENCES = (UNDEFINED, "no-such-module", "no-such-platform")


class Finding(msgspec.Struct, frozen=True):
    """An `error` keeps a deployment from working as written; a `warning` is legal and probably not meant.

    `line` is 0 where the finding is about a file as a whole.
    """

    severity: Literal["error", "warning"]
    code: str
    what: str
    file: str
    line: int = 0
    path: str = ""
    advice: str = ""

    @property
    def where(self) -> str:
        line = f", line {self.line}" if self.line else ""
        return f"{self.file}{line}" + (f", {self.path}" if self.path else "")

    @classmethod
    def of(cls, error: ConfigurationError) -> Finding:
        """From an error whose `where` is `FILE`, `FILE, line N` or `FILE, line N, column M`."""
        match = _WHERE.fullmatch(error.where)
        file, line, path = match.groups() if match else (error.where, None, None)
        return cls("error", error.code, error.what, file, int(line or 0), path or "", error.advice)

    def error(self) -> ConfigurationError:
        return ConfigurationError(self.code, self.what, where=self.where, advice=self.advice)


class Report:
    """Collects findings about one file.

    Args:
        file: as it is shown.
        lines: where each place begins; what is missing there counts as where it should stand.
        findings: earlier ones, about files beside it.
    """

    def __init__(self, file: str, lines: Mapping[Path, int] | None = None, findings: Sequence[Finding] = ()) -> None:
        self.file = file
        self.findings = list(findings)
        self.unresolved: set[Path] = set()
        """Texts with a variable or placeholder that stands for nothing: told of once, not what follows from it."""
        self._lines = lines or {}

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    def error(self, path: Path, what: str, advice: str = "", *, code: str = "bad-deployment") -> None:
        self._add("error", code, path, what, advice)

    def warn(self, path: Path, what: str, advice: str = "", *, code: str) -> None:
        self._add("warning", code, path, what, advice)

    @contextmanager
    def catching(self, path: Path) -> Iterator[None]:
        """An error of a parser becomes a finding about this place; the check goes on."""
        try:
            yield
        except ConfigurationError as error:
            self.error(path, error.what, error.advice, code=error.code)

    def line(self, path: Path) -> int:
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1 if self._lines else 0)

    def _add(self, severity: Literal["error", "warning"], code: str, path: Path, what: str, advice: str) -> None:
        if path in self.unresolved and code not in _ABOUT_REFERENCES:
            return
        finding = Finding(severity, code, what, self.file, self.line(path), place(path) or TOP, advice)
        if finding not in self.findings:
            self.findings.append(finding)
