"""The one gate that every request passes: quota, policy, audit, in this order."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgeclave.edge.twins.access_policy import Decision, Policy
from edgeclave.errors import EdgeclaveError
from enclave_broker.audit import AuditLog
from enclave_broker.metrics import Metrics
from enclave_broker.quotas import Limiter, QuotaError
from enclave_broker.responses import RefusalError

REFUSAL_AUDIT_SECONDS = 10.0
"""Requests refused before a decision are audited once in this time, with their count, for each caller and reason: a
flood of them must not push decisions out of the log."""
MAX_REFUSAL_KINDS = 256


class Gate:
    """Decides and audits. Without a policy (the twin has not been read yet) it sends callers away to come back.

    Args:
        clock: seconds, never going back.
    """

    def __init__(
        self, audit: AuditLog, limiter: Limiter, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.policy: Policy | None = None
        self._audit = audit
        self._limiter = limiter
        self._metrics = metrics
        self._clock = clock
        self._refusals: dict[tuple[str, str], tuple[float, int]] = {}

    def authorize(self, identity: str, operation: str, resource: str | None, *, call_id: str | None = None) -> None:
        """Return when the caller may go on; that it may is in the audit log then.

        Raises:
            QuotaError: too-many-requests.
            RefusalError: no-policy-yet (503), denied (403).
            AuditError: audit-unavailable.
        """
        try:
            self._limiter.admit(identity)
        except QuotaError as error:
            self.refused(identity, error)
            raise
        if self.policy is None:
            unready = RefusalError(
                503,
                "no-policy-yet",
                "the broker has not read its policy yet",
                advice="ask again; if it stays so, check the broker's connection to the hub",
                retry_after=1.0,
            )
            self.refused(identity, unready)
            raise unready
        decision = self.policy.decide(identity, operation, resource)
        self._record(identity, operation, resource, call_id, decision)
        if not decision.allowed:
            self._metrics.denials.labels(operation.partition(":")[0]).inc()
            raise RefusalError(
                403,
                "denied",
                f"{identity} may not {operation}: {decision.reason}",
                where=f"statement {decision.statement}" if decision.statement else "",
                advice="to allow it, add a statement to the policy in enclave_broker's module twin",
            )

    def may(self, identity: str, operation: str, resource: str) -> bool:
        """Whether a listing may show the resource; part of a request that was authorized and audited as a whole."""
        return self.policy is not None and self.policy.decide(identity, operation, resource).allowed

    def refused(self, identity: str, error: EdgeclaveError) -> None:
        """Audit a request that was refused before any decision. Raises AuditError."""
        key = (identity, error.code)
        now = self._clock()
        since, count = self._refusals.get(key, (float("-inf"), 0))
        if now - since < REFUSAL_AUDIT_SECONDS:
            self._refusals[key] = (since, count + 1)
            return
        if len(self._refusals) >= MAX_REFUSAL_KINDS:
            self._refusals.clear()
        self._audit.record("refused", identity=identity, outcome=error.code, count=count + 1)
        self._refusals[key] = (now, 0)

    def _record(
        self, identity: str, operation: str, resource: str | None, call_id: str | None, decision: Decision
    ) -> None:
        self._audit.record(
            "decision",
            identity=identity,
            operation=operation,
            resource=resource,
            call_id=call_id,
            outcome="allow" if decision.allowed else "deny",
            statement=decision.statement,
        )
