"""Findings as lines: JSON for programs, a short text for people.

Whatever a device said is shown with its control characters escaped: a terminal obeys them.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import TextIO

import msgspec
from rich.console import Console
from rich.text import Text

from edgeclave.cloud.findings import Finding, Trouble
from edgeclave.cloud.summary import Summary

PAYLOAD_CHARACTERS = 100  # of a payload that people see
_STYLES = {
    "result": "green",
    "heartbeat": "dim",
    "evidence": "cyan",
    "open": "cyan",
    "close": "cyan",
    "duplicate": "dim",
    "held": "yellow",
    "gap": "bold yellow",
}
_TROUBLE_STYLE = "bold red"


class JsonLines:
    """One JSON object a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def findings(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            self._stream.write(msgspec.json.encode(finding).decode() + "\n")
        self._stream.flush()

    def summary(self, summary: Summary) -> None:
        self._stream.write(msgspec.json.encode(summary).decode() + "\n")
        self._stream.flush()


class HumanLines:
    """Time, device, trusted application, output and sequence number, payload."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, emoji=False, soft_wrap=True)

    def findings(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            self._console.print(_line(finding))
            if finding.kind in list(Trouble) and finding.advice:
                self._console.print(Text(f"          do: {printable(finding.advice)}", style="dim"))
        self._console.file.flush()

    def summary(self, summary: Summary) -> None:
        classes = ", ".join(summary.evidence_type) or "none"
        troubles = {
            "refused": summary.refused,
            "missing (gaps)": summary.gaps,
            "lost": summary.losses,
            "rollbacks": summary.rollbacks,
            "forks": summary.forks,
            "resets": summary.resets,
            "equivocations": summary.equivocations,
        }
        text = Text(f"{summary.verified} results verified, {summary.opened} opened; evidence: {classes}", style="bold")
        text.append(f"; {summary.duplicates} duplicates, {summary.held} held", style="not bold")
        for name, count in troubles.items():
            if count:
                text.append(f"; {count} {name}", style=_TROUBLE_STYLE)
        self._console.print(text)
        self._console.file.flush()


def printable(text: str) -> str:
    """Control characters and the like as escapes."""
    return "".join(part if part.isprintable() else part.encode("unicode_escape").decode() for part in text)


def _line(finding: Finding) -> Text:
    style = _STYLES.get(finding.kind, _TROUBLE_STYLE)
    line = Text(datetime.datetime.now().astimezone().strftime("%H:%M:%S") + "  ", style="dim")
    line.append(f"{finding.kind:<10} ", style=style)
    line.append(printable(finding.device) or "-", style="bold")
    place = "/".join(printable(part) for part in (finding.slot, finding.output) if part)
    if place:
        line.append(f"  {place}")
    if finding.sequence is not None:
        line.append(f" #{finding.sequence}")
    line.append(f"  {_content(finding)}")
    return line


def _content(finding: Finding) -> str:
    if finding.text is not None:
        return _short(printable(finding.text))
    if finding.payload is not msgspec.UNSET:
        return _short(json.dumps(finding.payload))
    if finding.platform_class:
        return f"{finding.platform_class}, security version {finding.security_version}, freshness {finding.freshness}"
    return printable(" ".join(part for part in (finding.what, f"[{finding.code}]" if finding.code else "") if part))


def _short(text: str) -> str:
    return text if len(text) <= PAYLOAD_CHARACTERS else text[: PAYLOAD_CHARACTERS - 1] + "…"
