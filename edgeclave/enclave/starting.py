"""From a start request to an instance that may be called.

Order matters: the package is verified before anything derived from it is used; the state is opened and what the host
shows is checked before keys are made; the process is locked down before one instruction of the trusted application
runs; evidence comes before the open record that names it, and both before the first result. The counter, where there is
one, moves last: whatever keeps an instance from starting leaves the state as it was.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edgeclave.cose import sha256
from edgeclave.enclave import lockdown
from edgeclave.enclave.attester import Attester, InstanceKeys
from edgeclave.enclave.beacons import newer_beacon
from edgeclave.enclave.deadline import DeadlineTicker
from edgeclave.enclave.engine import make_engine
from edgeclave.enclave.epoch import epoch_record, read_predecessor
from edgeclave.enclave.files import Files
from edgeclave.enclave.guest import Guest, GuestEndedError
from edgeclave.enclave.hardware import Hardware
from edgeclave.enclave.instance import Instance
from edgeclave.enclave.linking import make_linker
from edgeclave.enclave.loading import Loaded, load
from edgeclave.enclave.log import TrustedApplicationLog, enclave_log
from edgeclave.enclave.messages import IdentityView, LimitsView, ManifestView, Released, Started, StartRequest
from edgeclave.enclave.pipe import Pipe
from edgeclave.enclave.sealing import SealingKeys
from edgeclave.enclave.services import Services
from edgeclave.enclave.state import Snapshot, StateVault
from edgeclave.enclave.storage import TrustedStorage, counter_id, storage_level
from edgeclave.enclave.streams import Streams
from edgeclave.errors import EdgeclaveError, PackageError
from edgeclave.evidence.collection import evidence_digest
from edgeclave.evidence.eat import Epoch
from edgeclave.evidence.runtime import require_measured
from edgeclave.results.records import OpenRecord, sign_open
from edgeclave.ta.manifest import Manifest

START_SECONDS = 10.0
"""How long the code may take that a component runs when it is instantiated."""


def start(request: StartRequest, files: Files, hardware: Hardware, host: Pipe) -> tuple[Instance, Started]:
    """Raises PackageError, EnclaveError and ResultError: each names what the host offered and why it was refused."""
    engine = make_engine(debuggable=hardware.debug)
    loaded = load(files, hardware, engine)
    identity, manifest = loaded.identity, loaded.manifest
    accept_from = manifest.accept_state_from_svn
    storage = TrustedStorage(
        StateVault(SealingKeys(hardware, identity, "state", accept_from), request.slot),
        hardware.counter(counter_id(hardware, identity, request.slot), host.exchange),
    )
    sealing_keys = SealingKeys(hardware, identity, "seal", accept_from)
    hardware.close_derivation()

    recovered = storage.open(request.state, request.pending)
    if recovered is not None:
        host.take_up(recovered)
    if storage.sealed_by is not None and storage.sealed_by.identity.unique_id != identity.unique_id:
        sealer = storage.sealed_by.identity
        enclave_log(
            "info",
            f"state of security version {sealer.security_version}, unique_id {sealer.unique_id.hex()}, is taken over",
        )
    snapshot = _with_beacon(storage.snapshot, manifest, request.beacon)
    predecessor = read_predecessor(snapshot.epoch, *_last_messages(request, recovered))
    streams = Streams(manifest.outputs, snapshot.recipients)
    for output, message in request.recipients.items():
        streams.set_recipients(output, message)

    keys = InstanceKeys.generate()
    epoch = Epoch(
        number=1 if predecessor is None else predecessor.number + 1,
        source=hardware.counter_source,
        predecessor=None if predecessor is None else predecessor.instance_id,
    )
    attester = Attester(hardware, identity, keys, epoch, streams)
    attester.beacon = snapshot.beacon
    services = Services(
        manifest.services,
        sealing_keys,
        attester.evidence,
        TrustedApplicationLog(),
        storage_level=storage_level(hardware),
        is_emulated=hardware.emulated,
    )
    memory_bytes = manifest.limits.memory_mib << 20
    ticker = DeadlineTicker(None if hardware.debug else engine.increment_epoch)
    guest = Guest(engine, loaded.component, make_linker(engine, loaded.imports, services), ticker, memory_bytes)
    require_measured()
    landlock = lockdown.before_running(memory_bytes, ticker.start)
    if not landlock:
        enclave_log("info", "the kernel has no Landlock: only the filter of system calls keeps the enclave in")
    _prepare(guest)

    evidence = attester.evidence(None, request.host_time)
    open_record = sign_open(
        OpenRecord(
            epoch=epoch.number,
            slot=request.slot,
            evidence_digest=evidence_digest(evidence),
            identity=identity,
            predecessor=epoch.predecessor,
            heads={} if predecessor is None else predecessor.heads,
        ),
        keys.signing,
    )
    streams.open(sha256(open_record))
    state = storage.commit(
        msgspec.structs.replace(
            snapshot,
            epoch=epoch_record(epoch.number, keys.signing.public_key(), open_record),
            recipients=streams.seen_recipients,
        ),
        Released(evidence=evidence, open_record=open_record),
    )
    instance = Instance(
        identity=identity,
        manifest=manifest,
        slot=request.slot,
        epoch=epoch,
        keys=keys,
        evidence_digest=evidence_digest(evidence),
        attester=attester,
        streams=streams,
        storage=storage,
        services=services,
        guest=guest,
    )
    started = Started(
        identity=IdentityView(**identity.to_map()),
        manifest=_view(loaded),
        instance_id=keys.instance_id,
        epoch=epoch.number,
        evidence=evidence,
        open_record=open_record,
        state=state,
        compiled=loaded.compiled,
    )
    return instance, started


def _last_messages(request: StartRequest, recovered: Released | None) -> tuple[Mapping[str, bytes], bytes | None]:
    """The last results and the open record of the instance before: what the host shows, and what it could not store."""
    if recovered is None:
        return request.shown, request.shown_open
    results = {result.output: result.sealed for result in recovered.results}
    return {**request.shown, **results}, recovered.open_record or request.shown_open


def _with_beacon(snapshot: Snapshot, manifest: Manifest, message: bytes | None) -> Snapshot:
    """A beacon that cannot be believed costs freshness, and is no reason to stand still."""
    if message is None:
        return snapshot
    try:
        return msgspec.structs.replace(snapshot, beacon=newer_beacon(manifest, message, snapshot.beacon))
    except EdgeclaveError as error:
        if error.code != "beacon-too-old":
            enclave_log("warning", f"the beacon given at the start is not used: {error}")
        return snapshot


def _prepare(guest: Guest) -> None:
    try:
        guest.prepare(START_SECONDS)
    except GuestEndedError as end:
        what = "did not come up in time" if end.timed_out else f"did not come up: {end}"
        raise PackageError(
            "does-not-start",
            f"the trusted application {what}",
            where="Wasm",
            advice="check its limits (memory_mib) and what it does at import time; build it against this release",
        ) from end


def _view(loaded: Loaded) -> ManifestView:
    manifest = loaded.manifest
    limits = manifest.limits
    return ManifestView(
        name=manifest.name,
        version=manifest.version,
        methods={name: method.channel for name, method in manifest.methods.items()},
        outputs=tuple(manifest.outputs),
        limits=LimitsView(limits.memory_mib, limits.deadline_ms, limits.message_kib),
    )
