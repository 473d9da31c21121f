"""What the runner counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class RunnerMetrics:
    """Counters per trusted application."""

    def __init__(self, registry: CollectorRegistry) -> None:
        app = ["trusted_app"]
        self._calls = Counter("ta_runner_calls", "Calls answered by the trusted application", app, registry=registry)
        self._failures = Counter(
            "ta_runner_call_failures", "Calls that failed, by status or code", [*app, "code"], registry=registry
        )
        self._seconds = Histogram(
            "ta_runner_call_seconds",
            "From the enclave's turn to the stored answer",
            app,
            buckets=_CALL_SECONDS,
            registry=registry,
        )
        self.restarts = Counter("ta_runner_restarts", "Enclaves that ended unasked", app, registry=registry)
        self.queue = Gauge("ta_runner_queued_calls", "Calls that wait or run", app, registry=registry)
        self.running = Gauge("ta_runner_running", "1 while an enclave takes calls", app, registry=registry)
        self.outbox_messages = Gauge("ta_runner_outbox_messages", "Messages that wait for the hub", registry=registry)
        self.outbox_bytes = Gauge("ta_runner_outbox_bytes", "Bytes that wait for the hub", registry=registry)

    def answered(self, trusted_app: str, status: int, seconds: float) -> None:
        """A call got its answer; statuses other than 200 are failures of the trusted application."""
        self._calls.labels(trusted_app).inc()
        self._seconds.labels(trusted_app).observe(seconds)
        if status != 200:
            # A trusted application may invent statuses; each label value costs memory here and in the collector.
            code = str(status) if 400 <= status <= 599 else "other"
            self._failures.labels(trusted_app, code).inc()

    def refused(self, trusted_app: str, code: str) -> None:
        """A call got no answer."""
        self._failures.labels(trusted_app, code).inc()
