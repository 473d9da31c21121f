"""What the broker, and only the broker of this device, may ask of the runner."""

from __future__ import annotations

from edgeclave.edge.link import (
    Acknowledge,
    AcknowledgeReply,
    Call,
    CallReply,
    EvidenceReply,
    GetEvidence,
    List,
    ListReply,
    Reply,
    Request,
)
from ta_runner.calls import RETRY_SECONDS, CallRefused
from ta_runner.reconciler import Reconciler
from ta_runner.store import RunnerStore
from ta_runner.trusted_app import TrustedApp


class RequestHandler:
    """Answers the link's requests; an EdgeclaveError that it raises becomes a Problem."""

    def __init__(self, reconciler: Reconciler, store: RunnerStore) -> None:
        self._reconciler = reconciler
        self._store = store

    async def __call__(self, request: Request) -> Reply:
        match request:
            case Call():
                return await self._call(request)
            case Acknowledge():
                return self._acknowledge(request)
            case GetEvidence():
                return await self._evidence(request)
            case List():
                apps = self._reconciler.wanted()
                return ListReply(trusted_apps={name: app.status.summary() for name, app in apps.items()})

    async def _call(self, call: Call) -> CallReply:
        return await self._find(call.trusted_app).call(call)

    def _acknowledge(self, request: Acknowledge) -> AcknowledgeReply:
        """Also for a trusted application that is not running, or was removed: its results are still there."""
        with self._store.transaction():
            count = self._store.acknowledge(request.trusted_app, request.caller, request.call_ids)
        return AcknowledgeReply(count=count)

    async def _evidence(self, request: GetEvidence) -> EvidenceReply:
        app = self._find(request.trusted_app)
        slot = self._store.slot(request.trusted_app)
        if request.nonce is None and app.status.state == "running" and slot is not None:
            return EvidenceReply(evidence=slot.evidence)
        return EvidenceReply(evidence=await app.evidence(request.nonce))

    def _find(self, name: str) -> TrustedApp:
        app = self._reconciler.find(name)
        if app is None and not self._reconciler.complete:
            raise CallRefused(
                "trusted-app-not-running",
                f"{name} is not running: the twin of ta_runner was not read yet, or is wrong",
                advice="repeat the call with the same call id; see ta_runner's reported properties",
                retry_after=RETRY_SECONDS,
            )
        if app is None:
            names = ", ".join(self._reconciler.wanted()) or "none"
            raise CallRefused(
                "unknown-trusted-app",
                f"this device runs no trusted application {name!r}",
                advice=f"it runs: {names}; see the twin of ta_runner",
            )
        return app
