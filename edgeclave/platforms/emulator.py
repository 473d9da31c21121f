"""The emulator: a TEE in software, on every machine, with or without a counter.

Its folder holds what a TEE has in silicon: `root.key` (all derived keys come from it), `attestation.key.pem` (signs
quotes) and `attestation.pub.pem` (the anchor a reader pins). Both secrets are made on first use, readable by their
owner only, and reach the enclave by an inherited memory file, never by argument, environment or pipe. Whoever can read
the folder can imitate this device, which is what `emulated` in its evidence means. `counters/` holds the counters,
which stand in for hardware (`edgeclave.platforms.emulated_counters`).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave.cose import generate_key, spki, thumbprint
from edgeclave.enclave import landlock
from edgeclave.enclave.emulated_hardware import ROOT_BYTES, EmulatorSecrets
from edgeclave.enclave.messages import StartRequest
from edgeclave.errors import EnclaveError, PackageError
from edgeclave.platforms.base import Keeper, NothingKept, Probe
from edgeclave.platforms.compiled_cache import CacheSlot, CompiledCodeCache
from edgeclave.platforms.debugger import Debugger
from edgeclave.platforms.emulated_counters import EmulatedCounters
from edgeclave.platforms.enclave_process import Counting, Descriptors, EnclaveProcess
from edgeclave.uninterrupted import to_its_end

_Begin = Callable[[EnclaveProcess], Awaitable[bool]]
"""The first request; says whether compiled code was made."""

ROOT_KEY, ATTESTATION_KEY, ANCHOR = "root.key", "attestation.key.pem", "attestation.pub.pem"
COUNTERS = "counters"


class Emulator:
    """Implements `Platform`.

    Args:
        directory: the emulator's folder; made on first use.
        cache: a folder for compiled code, which may be lost at any time.
        debugger: runs the enclaves under it, open to it.
        counter: imitate a TEE that has a counter, for rollback-protected storage. Most have none, hence the default.
    """

    def __init__(
        self, directory: Path, cache: Path, debugger: Debugger | None = None, *, counter: bool = False
    ) -> None:
        self.name = "emulator-with-counter" if counter else "emulator"
        self.directory = directory
        self._debugger = debugger
        self._cache = CompiledCodeCache(cache)
        self._compiling = asyncio.Lock()
        self._counters = EmulatedCounters(directory / COUNTERS, self._root_key) if counter else None

    def probe(self) -> Probe:
        version = landlock.version()
        isolation = f"seccomp, Landlock {version}" if version else "seccomp (the kernel has no Landlock)"
        detail = f"software emulation: proves nothing against the owner of the device; isolation by {isolation}"
        if self._counters is not None:
            detail += "; its counter is a file that stands in for hardware"
        return Probe(available=True, detail=detail)

    @property
    def anchor_file(self) -> Path:
        """The public attestation key as PEM; there after any other question here was asked."""
        return self.directory / ANCHOR

    def anchor(self) -> bytes:
        """The public attestation key as SPKI, DER: what a reader pins."""
        return spki(self._attestation_key().public_key())

    def platform_instance(self) -> bytes:
        """What tells this emulator from others in evidence, 32 bytes."""
        return thumbprint(self._attestation_key().public_key())

    async def start(self, package: Path, request: StartRequest, keeper: Keeper | None = None) -> EnclaveProcess:
        async def begin(enclave: EnclaveProcess) -> bool:
            return (await enclave.start(request)).compiled

        return await self._begin(package, request.slot, begin, keeper or NothingKept())

    async def compile(self, package: Path, slot: str) -> None:
        enclave = await self._begin(package, slot, EnclaveProcess.compile, NothingKept())
        await enclave.kill()

    async def _begin(self, package: Path, name: str, begin: _Begin, keeper: Keeper) -> EnclaveProcess:
        slot = await self._open_cache(package)
        if slot.cached is not None:
            return await self._begin_with(slot, package, name, begin, keeper)
        slot.close()
        # One at a time: a compiler may take most of a small gateway's memory, and the next start may find its code.
        async with self._compiling:
            return await self._begin_with(await self._open_cache(package), package, name, begin, keeper)

    async def _begin_with(
        self, slot: CacheSlot, package: Path, name: str, begin: _Begin, keeper: Keeper
    ) -> EnclaveProcess:
        # The enclave imports what it needs while its code is read; it waits for it until it is asked to start.
        filling = asyncio.ensure_future(asyncio.to_thread(self._fill, slot))
        try:
            enclave = await self._spawn(package, slot, name, keeper)
            try:
                await asyncio.shield(filling)
            except BaseException:
                await enclave.kill()
                raise
            if await begin(enclave):
                await to_its_end(asyncio.to_thread(slot.keep), lambda _: enclave.kill())
            let_go = slot.hold()
            enclave.ended.add_done_callback(lambda _: let_go())
        finally:
            await asyncio.gather(filling, return_exceptions=True)
            slot.close()
        return enclave

    async def _spawn(self, package: Path, slot: CacheSlot, name: str, keeper: Keeper) -> EnclaveProcess:
        opened: list[int] = []
        try:
            opened.append(os.open(package, os.O_RDONLY | os.O_CLOEXEC))
            opened.append(self._secrets())
            descriptors = Descriptors(opened[0], opened[1], slot.cached, slot.fresh)
            counting = None if self._counters is None else Counting(keeper, self._counters.run)
            spawning = EnclaveProcess.spawn(descriptors, name, counting, self._debugger)
            return await to_its_end(spawning, EnclaveProcess.kill)
        finally:
            for descriptor in opened:
                os.close(descriptor)

    async def _open_cache(self, package: Path) -> CacheSlot:
        return await to_its_end(
            asyncio.to_thread(self._read_cache, package), lambda slot: asyncio.to_thread(slot.close)
        )

    def _read_cache(self, package: Path) -> CacheSlot:
        try:
            return self._cache.open(package)
        except OSError as error:
            if error.filename != str(package):
                raise _cache_unusable(error) from error
            raise PackageError(
                "package-unreadable",
                f"the package cannot be used: {error.strerror}",
                where=str(package),
                advice="check that it is there and its permissions",
            ) from error

    def _fill(self, slot: CacheSlot) -> None:
        try:
            slot.fill()
        except OSError as error:
            raise _cache_unusable(error) from error

    def _secrets(self) -> int:
        """A memory file with what the enclave is told of its hardware, at its start."""
        key = self._attestation_key().private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        secrets = EmulatorSecrets(root=self._root_key(), attestation_key=key, counter=self._counters is not None)
        descriptor = os.memfd_create("hardware", os.MFD_CLOEXEC)
        os.write(descriptor, msgspec.msgpack.encode(secrets))
        return descriptor

    def _root_key(self) -> bytes:
        self._make()
        path = self.directory / ROOT_KEY
        root = _read(path)
        if len(root) != ROOT_BYTES:
            raise _unusable(path, f"it must have {ROOT_BYTES} bytes")
        return root

    def _attestation_key(self) -> ec.EllipticCurvePrivateKey:
        self._make()
        return _load(self.directory / ATTESTATION_KEY)

    def _make(self) -> None:
        """Makes folder and keys if neither key is there; one without the other is refused, never completed."""
        try:
            self._make_missing()
        except OSError as error:
            raise _unusable(self.directory, str(error.strerror)) from error

    def _make_missing(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        root, key = self.directory / ROOT_KEY, self.directory / ATTESTATION_KEY
        if root.exists() and key.exists() and self.anchor_file.exists():
            return
        folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # another process may be making them
            if not root.exists() and not key.exists():
                _write(key, _private_pem(generate_key()), 0o600)
                _write(root, os.urandom(ROOT_BYTES), 0o600)
            if not (root.exists() and key.exists()):
                raise _unusable(self.directory, "one of root.key and attestation.key.pem is missing")
            if not self.anchor_file.exists():
                _write(self.anchor_file, _public_pem(_load(key)), 0o644)
        finally:
            os.close(folder)


def _cache_unusable(error: OSError) -> PackageError:
    return PackageError(
        "cache-unusable",
        f"the cache of compiled code cannot be used: {error.strerror}",
        where=str(error.filename or "compiled code"),
        advice="check its permissions, the disk it is on, and the memory that is free",
    )


def _load(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError) as error:
        raise _unusable(path, "it is not a private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _unusable(path, "it is not a P-256 key")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from error


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _write(path: Path, content: bytes, mode: int) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    Path(file.name).replace(path)


def _unusable(path: Path, why: str) -> EnclaveError:
    return EnclaveError(
        "emulator-keys-unusable",
        f"the emulator's keys cannot be used: {why}",
        where=str(path),
        advice="restore the folder from a backup; removing it makes another device of this one",
    )
