"""Connection strings: given literally, as @FILE, or by an environment variable, so that secrets need not stand in argv.

>>> connection = parse_event_hub("Endpoint=sb://127.9.1.1/;SharedAccessKeyName=owner;SharedAccessKey=c2V;EntityPath=hub")
>>> connection
EventHubConnection(host='127.9.1.1', hub='hub')
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from edgeclave.errors import ConfigurationError

EVENT_HUB_VARIABLE = "EDGECLAVE_EVENTHUB"
MAX_CONNECTION_STRING_CHARACTERS = 8192
_KNOWN = {
    name.lower(): name
    for name in (
        "Endpoint",
        "SharedAccessKeyName",
        "SharedAccessKey",
        "SharedAccessSignature",
        "EntityPath",
        "UseDevelopmentEmulator",
        "TransportType",
        "OperationTimeout",
    )
}
_ADVICE = "copy it from the hub's built-in endpoint, or from `edgeclave sim connection-string eventhub`"


@dataclass(frozen=True)
class EventHubConnection:
    """An Event Hub-compatible endpoint. `text` is what azure-eventhub takes; it holds a key and never shows."""

    host: str
    hub: str
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
        raise _bad(f"it is longer than {MAX_CONNECTION_STRING_CHARACTERS} characters", where)
    return value


def parse_event_hub(text: str, *, where: str = "connection string") -> EventHubConnection:
    """Errors name the field that is wrong and never show a value, which might be the key.

    Raises:
        ConfigurationError: `bad-connection-string`.
    """
    fields = _fields(text, where)
    for name in ("Endpoint", "EntityPath"):
        if not fields.get(name):
            raise _bad(f"{name} is missing", where)
    if "SharedAccessSignature" in fields:
        if "SharedAccessKey" in fields:
            raise _bad("it has both SharedAccessKey and SharedAccessSignature", where)
    else:
        for name in ("SharedAccessKeyName", "SharedAccessKey"):
            if not fields.get(name):
                raise _bad(f"{name} is missing", where)
    try:
        endpoint = urlsplit(fields["Endpoint"])
        host = endpoint.hostname if endpoint.scheme == "sb" else None
    except ValueError:
        host = None
    if not host:
        raise _bad("Endpoint is not of the form sb://HOST/", where)
    return EventHubConnection(host, fields["EntityPath"], text)


def _fields(text: str, where: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for number, part in enumerate(text.strip().strip(";").split(";"), start=1):
        name, equals, value = part.partition("=")
        known = _KNOWN.get(name.strip().lower())
        if not equals or known is None:
            raise _bad(f"part {number} does not begin with a field name that Event Hubs has", where)
        if known in fields:
            raise _bad(f"{known} is there twice", where)
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


def _bad(what: str, where: str) -> ConfigurationError:
    return ConfigurationError("bad-connection-string", f"the connection string: {what}", where=where, advice=_ADVICE)
