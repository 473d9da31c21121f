"""Loopback addresses and ports: each simulator state has a 127.a.b.0/24 of its own, so that many run side by side."""

from __future__ import annotations

import secrets
import socket

import psutil  # type: ignore[import-untyped]

from edgeclave.errors import ConfigurationError

AMQPS_PORT = 5671  # azure-eventhub ignores the port of a connection string over TLS
SIMULATOR_OCTET = 1
_ATTEMPTS = 50


def choose_block() -> str:
    """A free "127.a.b": nobody listens in it and the AMQP port of its first address can be bound.

    Raises:
        ConfigurationError: `no-loopback-block`.
    """
    busy = {address.rpartition(".")[0] for address in _listening()}
    for _ in range(_ATTEMPTS):
        block = f"127.{1 + secrets.randbelow(254)}.{secrets.randbelow(256)}"
        if block not in busy and can_bind(f"{block}.{SIMULATOR_OCTET}", AMQPS_PORT):
            return block
    raise ConfigurationError(
        "no-loopback-block",
        f"no 127.a.b.0/24 has port {AMQPS_PORT} free",
        advice=f"stop what listens on 0.0.0.0:{AMQPS_PORT}, or run where 127.0.0.0/8 is the loopback network",
    )


def free_port(address: str, preferred: int = 0) -> int:
    """`preferred` when it can be bound, else one the kernel picks."""
    if preferred and can_bind(address, preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def can_bind(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


def _listening() -> set[str]:
    connections = psutil.net_connections(kind="tcp4")
    return {entry.laddr.ip for entry in connections if entry.status == psutil.CONN_LISTEN and entry.laddr}
