"""The broker's end of the link to ta_runner."""

from __future__ import annotations

import ssl

from edgeclave.edge.link import LINK_PATH, LINK_PORT, LinkClient
from enclave_broker.metrics import Metrics

RUNNER = "ta_runner"
"""Module id, and so DNS name, of the runner."""
ANSWER_SECONDS = 1.0
"""Longer than the call's own deadline that the broker waits, so that ta_runner's answer about it gets back."""


def runner_link(context: ssl.SSLContext, metrics: Metrics, *, port: int = LINK_PORT) -> LinkClient:
    """A link that keeps itself up while it is entered.

    Args:
        context: client context with the broker's identity certificate.
        metrics: told whether the link is up.
    """

    def changed(up: bool) -> None:
        metrics.link_up.set(1 if up else 0)

    return LinkClient(f"https://{RUNNER}:{port}{LINK_PATH}", context, server_name=RUNNER, on_change=changed)
