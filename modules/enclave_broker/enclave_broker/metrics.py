"""Prometheus metrics of the broker."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """All metrics; `operation` is invoke, acknowledge, evidence or list, never a name that a caller chose."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "edgeclave_broker_requests_total",
            "Requests by operation and outcome: ok, failure (the trusted application's own), or an error code",
            ["operation", "outcome"],
            registry=registry,
        )
        self.latency = Histogram(
            "edgeclave_broker_request_seconds",
            "Time from request to answer",
            ["operation"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.denials = Counter(
            "edgeclave_broker_policy_denials_total", "Requests that the policy denied", ["operation"], registry=registry
        )
        self.in_flight = Gauge("edgeclave_broker_requests_in_flight", "Requests sent to ta_runner", registry=registry)
        self.waiting = Gauge("edgeclave_broker_requests_waiting", "Requests that wait for a slot", registry=registry)
        self.link_up = Gauge("edgeclave_broker_runner_link_up", "1 when ta_runner is connected", registry=registry)
