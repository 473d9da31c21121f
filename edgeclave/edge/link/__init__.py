"""The link between enclave_broker and ta_runner: one WebSocket over mTLS, many requests in flight.

ta_runner listens (`LinkServer`) and admits one identity; enclave_broker connects (`LinkClient`), keeps the link up and
matches replies to requests. Messages are MessagePack maps (`messages`), one per WebSocket binary frame.

    server = LinkServer(handler, context, ModuleIdentity(hub, device, "enclave_broker"))
    await server.start("0.0.0.0")

    async with LinkClient("https://ta_runner:8444/link", context, server_name="ta_runner") as link:
        reply = await link.request(Call(trusted_app="anomaly", method="observe", payload="{}", ...), timeout_seconds=5)
"""

from edgeclave.edge.link.client import LinkClient
from edgeclave.edge.link.messages import (
    LINK_PATH,
    LINK_PORT,
    Acknowledge,
    AcknowledgeReply,
    Call,
    CallReply,
    EvidenceReply,
    GetEvidence,
    LinkError,
    List,
    ListReply,
    Problem,
    Reason,
    Reply,
    Request,
    SealedResult,
    TrustedAppSummary,
)
from edgeclave.edge.link.server import Handler, LinkServer

__all__ = [
    "LINK_PATH",
    "LINK_PORT",
    "Acknowledge",
    "AcknowledgeReply",
    "Call",
    "CallReply",
    "EvidenceReply",
    "GetEvidence",
    "Handler",
    "LinkClient",
    "LinkError",
    "LinkServer",
    "List",
    "ListReply",
    "Problem",
    "Reason",
    "Reply",
    "Request",
    "SealedResult",
    "TrustedAppSummary",
]
