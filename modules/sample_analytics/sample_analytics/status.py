"""What the module says about itself in its reported properties."""

from __future__ import annotations

from typing import Any

from edgeclave.errors import EdgeclaveError
from sample_analytics.sources import Source
from sample_analytics.store import Progress, Store

MAX_TEXT = 300


class Status:
    """What the source does, and what is in the way."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kind: str | None = None
        self._series: str | None = None
        self._state = "starting"
        self._readings = 0
        self._broken = 0
        self._failure: EdgeclaveError | None = None
        self.twin_problem: EdgeclaveError | None = None
        """The twin that was refused; the module goes on with the one before."""
        self.problem: str | None = None
        """The last thing of the source that could not be used."""

    def begins(self, kind: str) -> None:
        self._kind, self._series, self._state = kind, None, "starting"
        self._readings = self._broken = 0
        self.problem = self._failure = None

    def reads(self, source: Source) -> None:
        self._series, self._state, self._failure = source.series, "running", None

    def progressed(self, progress: Progress) -> None:
        self._readings, self._broken = progress.readings, progress.broken

    def finished(self) -> None:
        self._state = "finished"

    def failed(self, error: EdgeclaveError) -> None:
        """Something has to be tried again."""
        self._failure, self._state = error, "waiting"

    def well(self) -> None:
        """It worked."""
        if self._failure is not None:
            self._failure, self._state = None, "running"

    def unhealthy(self) -> str | None:
        """For /health."""
        error = self.twin_problem or self._failure
        return str(error)[:MAX_TEXT] if error else None

    def describe(self) -> dict[str, Any]:
        """The reported properties, whole; None removes a member."""
        return {
            "source": {
                "kind": self._kind,
                "series": self._series,
                "state": self._state,
                "readings": self._readings,
                "broken": self._broken,
                "problem": self.problem[:MAX_TEXT] if self.problem else None,
            },
            "counters": {**self._store.counters(), "outbox": len(self._store.outbox)},
            "reason": _reason(self.twin_problem or self._failure),
        }


def _reason(error: EdgeclaveError | None) -> dict[str, str] | None:
    if error is None:
        return None
    return {"code": error.code, "what": error.what[:MAX_TEXT], "where": error.where, "advice": error.advice}
