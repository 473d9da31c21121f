"""The last line of a run: what was found, and what is still missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from edgeclave.cloud.findings import Finding, Trouble
from edgeclave.results.stream import Pending


class Summary(msgspec.Struct, frozen=True, rename="camel", tag_field="kind", tag="summary"):
    """Counts of this run; `gaps` and `held` are what is missing and waits now, over all streams of the state folder.

    `verified` counts results whose signature, evidence and place were checked and that were next in their stream;
    `opened` those of them that this key could open. `evidence_type` names the platform classes of accepted evidence.
    """

    verified: int
    opened: int
    refused: int
    duplicates: int
    gaps: int
    held: int
    losses: int
    rollbacks: int
    forks: int
    resets: int
    equivocations: int
    ignored: int
    evidence_type: list[str]

    @property
    def troubled(self) -> bool:
        """Whether a person must look at something."""
        return any(
            (
                self.refused,
                self.gaps,
                self.losses,
                self.rollbacks,
                self.forks,
                self.resets,
                self.equivocations,
            )
        )


class Counts:
    """Adds findings up."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._classes: set[str] = set()
        self._sealed_for_others = 0

    def add(self, finding: Finding) -> None:
        self._kinds[finding.kind] += 1
        # A refused result with an epoch is one that was next in its stream and did not open.
        self._sealed_for_others += finding.kind == Trouble.REFUSED and finding.epoch is not None
        if finding.platform_class:
            self._classes.add(finding.platform_class)

    def summary(self, pending: Sequence[Pending], held: Mapping[str, int], ignored: int) -> Summary:
        opened = self._kinds["result"] + self._kinds["heartbeat"]
        return Summary(
            verified=opened + self._sealed_for_others,
            opened=opened,
            refused=self._kinds[Trouble.REFUSED],
            duplicates=self._kinds["duplicate"],
            gaps=sum(item.code == "gap" for item in pending),
            held=sum(held.values()),
            losses=self._kinds[Trouble.LOSS],
            rollbacks=self._kinds[Trouble.ROLLBACK],
            forks=self._kinds[Trouble.FORK],
            resets=self._kinds[Trouble.RESET],
            equivocations=self._kinds[Trouble.EQUIVOCATION],
            ignored=ignored,
            evidence_type=sorted(self._classes),
        )
