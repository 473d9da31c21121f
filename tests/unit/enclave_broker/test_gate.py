"""The gate's order, and what a flood of refusals leaves in the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from enclave_broker.audit import AuditLog
from enclave_broker.gate import MAX_REFUSAL_KINDS, REFUSAL_AUDIT_SECONDS, Gate
from enclave_broker.metrics import Metrics
from enclave_broker.quotas import Limiter, QuotaError
from enclave_broker.responses import RefusalError
from prometheus_client import CollectorRegistry

from edgeclave.edge.twins.enclave_broker import Quotas


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(tmp_path: Path, clock: Clock) -> Gate:
    limiter = Limiter(Quotas(requests_per_second=0.001, burst=1), clock)
    return Gate(AuditLog(tmp_path), limiter, Metrics(CollectorRegistry()), clock)


def audited(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


def test_a_flood_of_refusals_is_one_line_with_a_count(gate: Gate, clock: Clock, tmp_path: Path) -> None:
    with pytest.raises(RefusalError):
        gate.authorize("a", "list", None)
    for _ in range(1000):
        with pytest.raises(QuotaError):
            gate.authorize("a", "list", None)
    assert [(line["outcome"], line.get("count", 1)) for line in audited(tmp_path)] == [
        ("no-policy-yet", 1), ("too-many-requests", 1),
    ]  # fmt: skip
    clock.now += REFUSAL_AUDIT_SECONDS
    with pytest.raises(QuotaError):
        gate.authorize("a", "list", None)
    assert audited(tmp_path)[-1]["count"] == 1000


def test_refusals_of_ever_new_callers_stay_bounded(gate: Gate) -> None:
    for number in range(3 * MAX_REFUSAL_KINDS):
        gate.refused(f"caller {number}", RefusalError(403, "foreign-identity", "no"))
    assert len(gate._refusals) <= MAX_REFUSAL_KINDS


def test_nothing_may_be_seen_without_a_policy(gate: Gate) -> None:
    assert not gate.may("a", "list", "anomaly")
