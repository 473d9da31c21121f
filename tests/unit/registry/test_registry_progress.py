from __future__ import annotations

import pytest

import edgeclave.registry.progress
from edgeclave.registry.progress import Progress


def test_told_at_most_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [100.0], []
    monkeypatch.setattr(edgeclave.registry.progress.time, "monotonic", lambda: now[0])
    progress = Progress(told.append, "pushing the code", 20 << 20)
    for second in (0.2, 0.9, 1.1, 1.2, 2.2):
        now[0] = 100 + second
        progress.at(int(second * (1 << 20)))
    assert told == ["pushing the code: 1.1 of 20.0 MiB", "pushing the code: 2.2 of 20.0 MiB"]
