"""Connection strings: given literally, as @FILE, or by an environment variable, so that secrets need not stand in argv.

>>> connection = parse_event_hub("Endpoint=sb://127.9.1.1/;SharedAccessKeyName=owner;SharedAccessKey=c2V;EntityPath=hub")
>>> connection
EventHubConnection(host='127.9.1.1', hub='hub')
>>> parse_hub("HostName=h.azure-devices.net;SharedAccessKeyName=deployer;SharedAccessKey=c2VjcmV0")
HubConnection(host='h.azure-devices.net', policy='deployer')
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from edgeclave.errors import ConfigurationError

EVENT_HUB_VARIABLE = "EDGECLAVE_EVENTHUB"
HUB_VARIABLE = "EDGECLAVE_HUB"
MAX_CONNECTION_STRING_CHARACTERS = 8192
_EVENT_HUB_FIELDS = (
    "Endpoint",
    "SharedAccessKeyName",
    "SharedAccessKey",
    "SharedAccessSignature",
    "EntityPath",
    "UseDevelopmentEmulator",
    "TransportType",
    "OperationTimeout",
)
_HUB_FIELDS = ("HostName", "SharedAccessKeyName", "SharedAccessKey", "SharedAccessSignature", "DeviceId", "ModuleId")
_EVENT_HUB_ADVICE = "copy it from the hub's built-in endpoint, or from `edgeclave sim connection-string eventhub`"
_HUB_ADVICE = (
    "copy that of a shared access policy of the hub which may write the registry and connect as a service, or take it "
    "from `edgeclave sim connection-string service`"
)


@dataclass(frozen=True)
class EventHubConnection:
    """An Event Hub-compatible endpoint. `text` is what azure-eventhub takes; it holds a key and never shows."""

    host: str
    hub: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class HubConnection:
    """An IoT Hub's service side. `text` is what azure-iot-hub takes; it holds a key and never shows."""

    host: str
    policy: str
    text: str = field(repr=False)


def connection_string(given: str | None, *, variable: str, option: str) -> str:
    """The string itself, from where it was given.

    Args:
        given: literal, `@FILE`, or None for the environment variable.
        variable: name of that variable; its value may be `@FILE` too.
        option: what the command line calls it, for error messages.

    Raises:
        ConfigurationError: `no-connection-string`, `connection-string-unreadable`, `bad-connection-string`.
    """
    where = option if given else variable
    value = (given or os.environ.get(variable, "")).strip()
    if value.startswith("@"):
        where = value[1:]
        value = _read(Path(where))
    if not value:
        raise ConfigurationError(
            "no-connection-string",
            "no connection string was given",
            where=where,
            advice=f"give {option} @FILE, or set {variable}",
        )
    if len(value) > MAX_CONNECTION_STRING_CHARACTERS:
        raise _bad(f"it is longer than {MAX_CONNECTION_STRING_CHARACTERS} characters", where, f"check {option}")
    return value


def parse_event_hub(text: str, *, where: str = "connection string") -> EventHubConnection:
    """Errors name the field that is wrong and never show a value, which might be the key.

    Raises:
        ConfigurationError: `bad-connection-string`.
    """
    fields = _fields(text, where, _EVENT_HUB_FIELDS, _EVENT_HUB_ADVICE)
    for name in ("Endpoint", "EntityPath"):
        if not fields.get(name):
            raise _bad(f"{name} is missing", where, _EVENT_HUB_ADVICE)
    if "SharedAccessSignature" in fields:
        if "SharedAccessKey" in fields:
            raise _bad("it has both SharedAccessKey and SharedAccessSignature", where, _EVENT_HUB_ADVICE)
    else:
        for name in ("SharedAccessKeyName", "SharedAccessKey"):
            if not fields.get(name):
                raise _bad(f"{name} is missing", where, _EVENT_HUB_ADVICE)
    try:
        endpoint = urlsplit(fields["Endpoint"])
        host = endpoint.hostname if endpoint.scheme == "sb" else None
    except ValueError:
        host = None
    if not host:
        raise _bad("Endpoint is not of the form sb://HOST/", where, _EVENT_HUB_ADVICE)
    return EventHubConnection(host, fields["EntityPath"], text)


def parse_hub(text: str, *, where: str = "connection string") -> HubConnection:
    """A service connection string of IoT Hub. Errors never show a value.

    Raises:
        ConfigurationError: `bad-connection-string`.
    """
    fields = _fields(text, where, _HUB_FIELDS, _HUB_ADVICE)
    if "DeviceId" in fields:
        raise _bad("it is a device's own, not the service's", where, _HUB_ADVICE)
    if "SharedAccessSignature" in fields:
        raise _bad("it holds a signature; azure-iot-hub signs for itself and needs the key", where, _HUB_ADVICE)
    for name in ("HostName", "SharedAccessKeyName", "SharedAccessKey"):
        if not fields.get(name):
            raise _bad(f"{name} is missing", where, _HUB_ADVICE)
    try:
        base64.b64decode(fields["SharedAccessKey"], validate=True)
    except binascii.Error:
        raise _bad("SharedAccessKey is not base64: it was cut or changed", where, _HUB_ADVICE) from None
    names = ("HostName", "SharedAccessKeyName", "SharedAccessKey")
    clean = ";".join(
        f"{name}={fields[name]}" for name in names
    )  # the SDK refuses other cases and a semicolon at the end
    return HubConnection(fields["HostName"], fields["SharedAccessKeyName"], clean)


def _fields(text: str, where: str, names: Iterable[str], advice: str) -> dict[str, str]:
    spelled = {name.lower(): name for name in names}
    fields: dict[str, str] = {}
    for number, part in enumerate(text.strip().strip(";").split(";"), start=1):
        name, equals, value = part.partition("=")
        known = spelled.get(name.strip().lower())
        if not equals or known is None:
            raise _bad(f"part {number} does not begin with a field name that belongs there", where, advice)
        if known in fields:
            raise _bad(f"{known} is there twice", where, advice)
        fields[known] = value.strip()
    return fields


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_CONNECTION_STRING_CHARACTERS + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigurationError(
            "connection-string-unreadable",
            f"the file with the connection string cannot be read: {reason}",
            where=str(path),
            advice="name a file that holds nothing but the connection string",
        ) from error


def _bad(what: str, where: str, advice: str) -> ConfigurationError:
    return ConfigurationError("bad-connection-string", f"the connection string: {what}", where=where, advice=advice)
