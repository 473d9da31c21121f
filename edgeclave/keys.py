"""The key folder: `NAME.key.pem` (PKCS #8, readable by its owner only) and `NAME.pub.pem` (SPKI), all P-256.

Signing keys, recipient authorities, beacon authorities and readers are all such keys; the roles are separated by what
they sign, not by how they are stored. In production an authority's private key belongs into an HSM, not into a folder.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> public = create_key(folder, "reader").public_key()
>>> load_public_key(folder / "reader.pub.pem") == public
True
>>> list_keys(folder)[0].name
'reader'
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave.cose import generate_key, thumbprint
from edgeclave.errors import ConfigurationError

DEFAULT_FOLDER = Path(".edgeclave/keys")
FOLDER_VARIABLE = "EDGECLAVE_KEYS"
MAX_KEY_FILE_BYTES = 16 << 10
_NAME = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_VARIABLE = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]*\Z")
_PRIVATE, _PUBLIC = ".key.pem", ".pub.pem"
_READABLE = 0o644
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class StoredKey:
    """A key of the folder; `private` tells whether its private half is there too. thumbprint: RFC 9679, SHA-256."""

    name: str
    thumbprint: bytes
    private: bool


def key_folder() -> Path:
    """The folder that EDGECLAVE_KEYS names, or `.edgeclave/keys`."""
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)


def create_key(folder: Path, name: str) -> ec.EllipticCurvePrivateKey:
    """Makes a key and both its files, and the folder (0700) where it is missing.

    Raises:
        ConfigurationError: `bad-key-name`, `key-exists`, `cannot-write`.
    """
    private_path, public_path = private_key_path(folder, name), public_key_path(folder, name)
    with _writing(folder):
        if private_path.exists() or public_path.exists():
            raise ConfigurationError(
                "key-exists",
                f"there is already a key named {name}",
                where=str(private_path),
                advice="choose another name; a key that is in use cannot be replaced by one of the same name",
            )
        key = generate_key()
        _write_private(private_path, key)
        write_whole(public_path, public_pem(key.public_key()))
    return key


def key_or_new(folder: Path, name: str) -> ec.EllipticCurvePrivateKey:
    """The named key, made where it is missing. Of many that ask at once one makes it, and an interruption leaves none
    behind that is not whole.

    Raises:
        ConfigurationError: what `create_key` and `load_private_key` raise.
    """
    private_path, public_path = private_key_path(folder, name), public_key_path(folder, name)
    if private_path.exists() and public_path.exists():
        return load_private_key(private_path)
    with _writing(folder):
        if not private_path.exists() and not public_path.exists():
            _write_private(private_path, generate_key())
        key = load_private_key(private_path)
        if not public_path.exists():
            write_whole(public_path, public_pem(key.public_key()))
    return key


def load_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Reads a private key that only its owner can read.

    Raises:
        ConfigurationError: `no-such-key`, `bad-key`, `key-exposed`.
    """
    data = _read(path)
    if path.stat().st_mode & _OTHERS:
        raise ConfigurationError(
            "key-exposed", "others can read this private key", where=str(path), advice=f"run `chmod 600 {path}`"
        )
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _bad_key(path, "not an unencrypted PEM private key (PKCS #8)") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _bad_key(path, "not a P-256 key")
    return key


def load_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Raises ConfigurationError `no-such-key`, `bad-key`."""
    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _bad_key(path, "not a PEM public key (SPKI)") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _bad_key(path, "not a P-256 key")
    return key


def list_keys(folder: Path) -> list[StoredKey]:
    """All keys of the folder by name; none if there is no folder.

    Raises:
        ConfigurationError: `bad-key`.
    """
    names = sorted(path.name.removesuffix(_PUBLIC) for path in folder.glob(f"*{_PUBLIC}"))
    return [
        StoredKey(
            name, thumbprint(load_public_key(public_key_path(folder, name))), private_key_path(folder, name).exists()
        )
        for name in names
    ]


def private_key_path(folder: Path, name: str) -> Path:
    """Raises ConfigurationError `bad-key-name`."""
    return folder / (_checked(name) + _PRIVATE)


def public_key_path(folder: Path, name: str) -> Path:
    """Raises ConfigurationError `bad-key-name`."""
    return folder / (_checked(name) + _PUBLIC)


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def set_env_variable(path: Path, name: str, value: str) -> None:
    """Sets one variable of a `.env` file and leaves all other lines as they are. Atomic; makes the file if missing.

    Raises:
        ConfigurationError: `bad-variable`, `cannot-write`.
    """
    if not _VARIABLE.match(name) or any(character in value for character in "\r\n\0\"'"):
        raise ConfigurationError(
            "bad-variable",
            f"cannot stand in a .env file: {name}",
            where=str(path),
            advice="choose a name of letters, digits and _, and a value without quotes and ends of lines",
        )
    written = f'{name}="{value}"' if re.search(r"[\s#$\\]", value) else f"{name}={value}"
    with _writing(path.parent, path):
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        places = [index for index, line in enumerate(lines) if _assigns(line, name)]
        lines = [line for index, line in enumerate(lines) if index not in places[1:]]
        if places:
            lines[places[0]] = written
        else:
            lines.append(written)
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else _READABLE
        write_whole(path, ("\n".join(lines) + "\n").encode(), mode)


def write_whole(path: Path, data: bytes, mode: int = _READABLE) -> None:
    """Writes a file in one step, never half of it. Raises OSError."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a file", str(path))
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _write_private(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_whole(path, pem, stat.S_IRUSR | stat.S_IWUSR)


@contextlib.contextmanager
def _writing(folder: Path, file: Path | None = None) -> Iterator[None]:
    """One at a time: in a key folder, made where it is missing, or in the folder of a file.

    Raises:
        ConfigurationError: `cannot-write`.
    """
    try:
        if file is None:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    except (OSError, UnicodeDecodeError) as error:
        raise _cannot_write(file or folder, error) from error


def _assigns(line: str, name: str) -> bool:
    return line.split("=", 1)[0].strip().removeprefix("export ").strip() == name


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise ConfigurationError(
            "bad-key-name", f"{name!r} cannot name a key", advice="use letters, digits, dot, underscore and hyphen"
        )
    return name


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        name = path.name.removesuffix(_PRIVATE).removesuffix(_PUBLIC)
        raise ConfigurationError(
            "no-such-key",
            f"there is no key named {name}",
            where=str(path),
            advice=f"run `edgeclave keys new {name}`, or name another folder with --keys",
        ) from error
    if len(data) > MAX_KEY_FILE_BYTES:
        raise _bad_key(path, f"over the limit of {MAX_KEY_FILE_BYTES} bytes")
    return data


def _bad_key(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError("bad-key", what, where=str(path), advice="use a key made by `edgeclave keys new`")


def _cannot_write(path: Path, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        "cannot-write",
        f"cannot write: {error}",
        where=str(path),
        advice="make room, or name a place that you may write",
    )
