"""What docker's configuration says about a registry: `config.json`, as `docker login` or `az acr login` writes it.

`auths` holds credentials, `credHelpers` and `credsStore` name programs that do: `docker-credential-NAME get`.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgeclave.registry.errors import RegistryError
from edgeclave.registry.reference import DOCKER_HUB

FILE_NAME = "config.json"
MAX_FILE_BYTES = 1 << 20
MAX_SECRET_CHARACTERS = 64 << 10
"""Tokens of clouds are a few KiB."""
HELPER_SECONDS = 30
_DOCKER_HUB_KEY = "index.docker.io"
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_TOKEN_USER = "<token>"  # noqa: S105 - what helpers say in place of a user's name


@dataclass(frozen=True)
class Credentials:
    """A user and a secret: a password, or a token that is exchanged for access tokens (`is_token`)."""

    username: str
    secret: str = field(repr=False)
    is_token: bool = False


class _Entry(msgspec.Struct, rename="lower"):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _File(msgspec.Struct, rename="camel"):
    auths: dict[str, _Entry] = {}
    cred_helpers: dict[str, str] = {}
    creds_store: str = ""


class _Helped(msgspec.Struct, rename="pascal"):
    username: str
    secret: str


def docker_folder() -> Path:
    """Where docker keeps its configuration: DOCKER_CONFIG or ~/.docker."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def read_credentials(host: str, folder: Path) -> Credentials | None:
    """The credentials that `folder/config.json` has for a registry, or None. May run a helper program.

    Raises:
        RegistryError: `bad-credentials`, `credentials-exposed`, `credential-helper-failed`.
    """
    path = folder / FILE_NAME
    data = _read(path)
    if data is None:
        return None
    try:
        configuration = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(path, f"it is not docker's configuration: {error}") from None
    wanted = _DOCKER_HUB_KEY if host == DOCKER_HUB else host
    helpers = {_registry_of(key): name for key, name in configuration.cred_helpers.items()}
    if name := helpers.get(wanted):
        return _ask_helper(name, wanted, path)
    entries = {_registry_of(key): entry for key, entry in configuration.auths.items()}
    found = _of_entry(entries[wanted], path) if wanted in entries else None
    if found is not None:
        if path.stat().st_mode & stat.S_IRWXO:
            raise RegistryError(
                "credentials-exposed",
                "everybody on this machine can read these credentials",
                where=str(path),
                advice=f"run `chmod o= {path}`",
            )
        return found
    if configuration.creds_store:
        return _ask_helper(configuration.creds_store, wanted, path)
    return None


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RegistryError(
            "bad-credentials",
            f"it cannot be read: {error.strerror}",
            where=str(path),
            advice=f"give it to user or group {os.geteuid()}, which reads it, with mode 0600 or 0640",
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise _bad(path, f"it is over {MAX_FILE_BYTES} bytes")
    return data


def _registry_of(key: str) -> str:
    """Keys are hosts, or addresses as older programs wrote them."""
    return key.partition("://")[2].partition("/")[0].lower() if "://" in key else key.partition("/")[0].lower()


def _of_entry(entry: _Entry, path: Path) -> Credentials | None:
    username, password = entry.username, entry.password
    if entry.auth:
        try:
            username, _, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise _bad(path, "an `auth` in it is not base64 of USER:PASSWORD") from None
    if entry.identitytoken:
        return checked(Credentials(username, entry.identitytoken, is_token=True), str(path))
    # docker writes an empty entry where a helper has the credentials
    return checked(Credentials(username, password.rstrip("\0")), str(path)) if username else None


def _ask_helper(name: str, registry: str, path: Path) -> Credentials | None:
    program = f"docker-credential-{name}"
    asked = f"https://{registry}/v1/" if registry == _DOCKER_HUB_KEY else registry
    if not _HELPER.match(name):
        raise _bad(path, "it names a credential helper that cannot be one")
    try:
        done = subprocess.run(
            [program, "get"], input=asked.encode(), capture_output=True, timeout=HELPER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _helper_failed(program, f"{type(error).__name__}", path) from error
    if done.returncode != 0:
        if b"not found" in done.stdout + done.stderr:  # the protocol's words for: nothing is stored
            return None
        raise _helper_failed(program, f"it ended with {done.returncode}", path)
    try:
        helped = msgspec.json.decode(done.stdout[:MAX_FILE_BYTES], type=_Helped)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _helper_failed(program, "its answer is not the protocol's", path) from None
    return checked(Credentials(helped.username, helped.secret, is_token=helped.username == _TOKEN_USER), program)


def checked(credentials: Credentials, where: str) -> Credentials:
    """Credentials that can stand in a header. Raises RegistryError `bad-credentials`."""
    text = credentials.username + credentials.secret
    if len(text) > MAX_SECRET_CHARACTERS or any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise RegistryError(
            "bad-credentials",
            "user or password is too long, or has control characters",
            where=where,
            advice="log in again with `docker login`",
        )
    return credentials


def _bad(path: Path, what: str) -> RegistryError:
    return RegistryError(
        "bad-credentials", what[:300], where=str(path), advice="make it anew with `docker login`, for one"
    )


def _helper_failed(program: str, why: Any, path: Path) -> RegistryError:
    return RegistryError(
        "credential-helper-failed",
        f"{program}, which has the credentials, did not give them: {why}",
        where=str(path),
        advice="install it, or use a config.json that holds the credentials themselves (`auths`)",
    )
