"""Prometheus metrics of the verifier service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """`operation` is one of the document's operation ids, `outcome` ok or an error code; nothing a caller chose."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "edgeclave_verifier_requests_total",
            "Requests by operation and outcome: ok, or an error code",
            ["operation", "outcome"],
            registry=registry,
        )
        self.seconds = Histogram(
            "edgeclave_verifier_request_seconds",
            "Time from the request's head to its answer",
            ["operation"],
            buckets=BUCKETS,
            registry=registry,
        )
