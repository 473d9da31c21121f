"""What a simulator state fixes at its first start and keeps: names, keys, addresses, ports."""

from __future__ import annotations

import base64
import secrets

import msgspec

from edgeclave.errors import ConfigurationError
from edgeclave.simulator.addresses import SIMULATOR_OCTET, choose_block, free_port
from edgeclave.simulator.identities import DEVICE_ID
from edgeclave.simulator.store import Store

HUB_NAME = "edgeclave-sim"
HUB_HOST = "edgeclave-sim.azure-devices.test"  # .test is reserved for this (RFC 6761): it can never be a real hub
DPS_HOST = "edgeclave-sim.azure-devices-provisioning.test"
ID_SCOPE = "0neEDC1A7E5"  # of the provisioning service


class Ports(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of the simulator's own address. `proxy` is the one modules are told about."""

    mqtt: int
    https: int
    proxy: int


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the settings table, as JSON.

    `owner_key` opens the service API and the Event Hub endpoint, `sealing_key` is behind the workload API's
    encrypt and decrypt; both are base64 of 32 bytes.
    """

    device_id: str
    hub_name: str
    hub_host: str
    gateway: str
    block: str
    owner_key: str
    sealing_key: str
    ports: Ports

    @property
    def address(self) -> str:
        return f"{self.block}.{SIMULATOR_OCTET}"

    @property
    def proxy_url(self) -> str:
        return f"http://{self.address}:{self.ports.proxy}"


def load_settings(store: Store) -> Settings:
    """The settings of this state, made at the first call."""
    row = store.connection.execute("SELECT value FROM settings WHERE key = 'simulator'").fetchone()
    if row is not None:
        try:
            return msgspec.json.decode(row["value"], type=Settings)
        except msgspec.DecodeError as error:
            raise ConfigurationError(
                "simulator-state-unusable",
                f"the settings in the simulator's state cannot be read: {error}",
                advice="use the release that wrote them, or another --state directory",
            ) from error
    block = choose_block()
    settings = Settings(
        device_id=DEVICE_ID,
        hub_name=HUB_NAME,
        hub_host=HUB_HOST,
        gateway=f"{DEVICE_ID}-gateway",
        block=block,
        owner_key=_new_key(),
        sealing_key=_new_key(),
        ports=_choose_ports(f"{block}.{SIMULATOR_OCTET}", Ports(0, 0, 0)),
    )
    _save(store, settings)
    return settings


def with_usable_ports(store: Store, settings: Settings) -> Settings:
    """The same settings; ports that something else has taken meanwhile are replaced and stored."""
    ports = _choose_ports(settings.address, settings.ports)
    if ports != settings.ports:
        settings = msgspec.structs.replace(settings, ports=ports)
        _save(store, settings)
    return settings


def _choose_ports(address: str, preferred: Ports) -> Ports:
    chosen: list[int] = []
    for port in (preferred.mqtt, preferred.https, preferred.proxy):
        candidate = free_port(address, port)
        while candidate in chosen:
            candidate = free_port(address)
        chosen.append(candidate)
    return Ports(*chosen)


def _save(store: Store, settings: Settings) -> None:
    with store.write() as connection:
        connection.execute(
            "INSERT OR REPLACE INTO settings VALUES ('simulator', ?)", (msgspec.json.encode(settings).decode(),)
        )
    store.commit()


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()
