"""What is known of one trusted application, for the twin, the broker and the operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from edgeclave.edge.link import Reason, TrustedAppSummary
from edgeclave.enclave.messages import Started
from edgeclave.errors import EdgeclaveError

State = Literal["starting", "running", "backoff", "failed", "stopped"]
MAX_REASON_CHARACTERS = 300
"""Of `what` and of `advice`: all reported properties share 32 KiB."""


@dataclass
class Status:
    """The state of a slot. `reason` says what is wrong even while something (else) runs."""

    state: State = "stopped"
    started: Started | None = None
    digest: str | None = None
    restarts: int = 0
    reason: EdgeclaveError | None = None

    def reported(self) -> dict[str, Any]:
        """As in reported properties: every member is there, None where nothing is to be said."""
        started = self.started
        return {
            "state": self.state,
            "uniqueId": started and started.identity.unique_id.hex(),
            "signerId": started and started.identity.signer_id.hex(),
            "productId": started and started.identity.product_id,
            "securityVersion": started and started.identity.security_version,
            "debug": started and started.identity.debug,
            "version": started and started.manifest.version,
            "digest": self.digest,
            "epoch": started and started.epoch,
            "instanceId": started and started.instance_id.hex(),
            "restarts": self.restarts,
            "reason": reported_reason(self.reason),
        }

    def summary(self) -> TrustedAppSummary:
        """As the broker lists it."""
        started = self.started
        members = reported_reason(self.reason)
        reason = Reason(**members) if members is not None else None
        if started is None:
            return TrustedAppSummary(state=self.state, reason=reason)
        return TrustedAppSummary(
            state=self.state,
            version=started.manifest.version,
            unique_id=started.identity.unique_id.hex(),
            signer_id=started.identity.signer_id.hex(),
            product_id=started.identity.product_id,
            security_version=started.identity.security_version,
            debug=started.identity.debug,
            methods=tuple(started.manifest.methods),
            reason=reason,
        )


def reported_reason(error: EdgeclaveError | None) -> dict[str, str] | None:
    """An error as `{code, what, advice}`, cut to size."""
    if error is None:
        return None
    what = f"{error.what} ({error.where})" if error.where else error.what
    return {"code": error.code, "what": _cut(what), "advice": _cut(error.advice)}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_REASON_CHARACTERS else f"{text[: MAX_REASON_CHARACTERS - 1]}…"
