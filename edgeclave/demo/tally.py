"""What the reader has said so far, counted from the lines of `edgeclave consume --json`."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

LATEST = 8  # results shown in the live table


@dataclass
class Tally:
    """Counts of findings by kind, the newest opened results, and what the evidence said."""

    kinds: Counter[str] = field(default_factory=Counter)
    latest: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=LATEST))
    outputs: Counter[str] = field(default_factory=Counter)
    evidence_types: set[str] = field(default_factory=set)
    refusals: list[str] = field(default_factory=list)

    def add(self, finding: dict[str, Any]) -> None:
        kind = str(finding.get("kind"))
        self.kinds[kind] += 1
        if kind == "result":
            self.latest.append(finding)
            self.outputs[str(finding.get("output"))] += 1
        elif kind == "evidence":
            self.evidence_types.add(str(finding.get("platformClass")))
        elif kind == "refused":
            self.refusals.append(f"{finding.get('code')}: {finding.get('advice')}")

    @property
    def opened(self) -> int:
        return self.kinds["result"]

    @property
    def evidence_type(self) -> str:
        return ", ".join(sorted(self.evidence_types)) or "none"
