"""What survives an enclave: committed state and the stream; what does not: everything else."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from edgeclave.cose import sha256
from edgeclave.errors import EdgeclaveError
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.collection import decode_collection, evidence_digest
from edgeclave.evidence.eat import read_eat
from edgeclave.evidence.policy import Policy, TrustedApp
from edgeclave.evidence.reference import Reference
from edgeclave.evidence.runtime import runtime_digest
from edgeclave.evidence.verifier import Verifier
from edgeclave.platforms.base import StartRequest
from edgeclave.platforms.emulator import Emulator
from edgeclave.platforms.enclave_process import EnclaveProcess
from edgeclave.results.records import verify_close, verify_open
from edgeclave.results.sealed import open_result, verify_result
from tests.fixtures.wat.packages import HandmadePackage, Signer, minimal_package

from .conftest import Slot, Start, call, reply


def claims(enclave: EnclaveProcess):  # type: ignore[no-untyped-def]
    return read_eat(decode_collection(enclave.started.evidence).eat)


async def refusal(emulator: Emulator, package: HandmadePackage, request: StartRequest) -> str:
    with pytest.raises(EdgeclaveError) as error:
        await emulator.start(package.path, request)
    assert error.value.advice
    return error.value.code


async def test_a_genesis_names_evidence_and_no_predecessor(start: Start, minimal: HandmadePackage) -> None:
    enclave = await start(minimal)
    opened = verify_open(enclave.started.open_record, claims(enclave).signing_key)
    assert opened.instance_id == enclave.started.instance_id
    assert (opened.record.epoch, opened.record.predecessor, opened.record.heads) == (1, None, {})
    assert opened.record.evidence_digest == evidence_digest(enclave.started.evidence)


async def test_results_chain_from_the_open_record_and_open_for_the_reader(
    start: Start, minimal: HandmadePackage
) -> None:
    enclave = await start(minimal)
    previous = sha256(enclave.started.open_record)
    for sequence in (1, 2, 3):
        (result,) = (await call(enclave, "publish", {"n": sequence})).results
        verified = verify_result(result.sealed, claims(enclave).signing_key)
        assert (result.sequence, verified.header.sequence, verified.header.previous) == (sequence, sequence, previous)
        assert (verified.header.calls, verified.header.assurance) == (sequence, "none")
        assert open_result(verified, minimal.signer.reader) == b'{"n": %d}' % sequence
        previous = verified.digest


async def test_after_sigkill_committed_state_is_there_and_the_stream_goes_on(
    start: Start, minimal: HandmadePackage
) -> None:
    slot = Slot()
    first = await start(minimal, slot)
    slot.record(await call(first, "store", "committed"))
    slot.record(await call(first, "publish", 1))
    slot.record(await call(first, "publish", 2))
    stored = slot.state
    await call(first, "store", "answered, but never stored by the host")
    await call(first, "publish", 3)
    os.kill(first.process_id, signal.SIGKILL)
    ended = await first.ended
    assert (ended.reason, ended.expected) == ("ended by SIGKILL", False)
    with pytest.raises(EdgeclaveError, match="enclave-ended"):
        await call(first, "echo")

    assert slot.state == stored
    second = await start(minimal, slot)
    opened = verify_open(second.started.open_record, claims(second).signing_key)
    assert (opened.record.epoch, opened.record.predecessor) == (2, first.started.instance_id)
    assert opened.record.heads == {"out": (2, sha256(slot.shown["out"]))}
    assert claims(second).epoch.predecessor == first.started.instance_id
    (result,) = (await call(second, "publish", 4)).results
    header = verify_result(result.sealed, claims(second).signing_key).header
    assert (header.epoch, header.sequence, header.previous) == (2, 1, sha256(second.started.open_record))


async def test_an_instance_without_results_has_no_heads_to_hand_on(start: Start, minimal: HandmadePackage) -> None:
    slot = Slot()
    first = await start(minimal, slot)
    slot.record(await call(first, "publish", 1))
    await first.kill()
    second = await start(minimal, slot)
    await second.kill()
    third = await start(minimal, slot)
    opened = verify_open(third.started.open_record, claims(third).signing_key)
    assert (opened.record.epoch, opened.record.predecessor) == (3, second.started.instance_id)
    assert opened.record.heads == {}


async def test_a_clean_stop_leaves_a_close_record(start: Start, minimal: HandmadePackage) -> None:
    enclave = await start(minimal)
    (result,) = (await call(enclave, "publish", 1)).results
    record = await enclave.stop()
    assert record is not None
    closed = verify_close(record, claims(enclave).signing_key)
    assert closed.record.heads == {"out": (1, sha256(result.sealed))}
    ended = await enclave.ended
    assert (ended.exit_code, ended.expected) == (0, True)
    assert await enclave.stop() is None


async def test_two_instances_share_no_key(start: Start, minimal: HandmadePackage) -> None:
    slot = Slot()
    first, second = await start(minimal, slot), await start(minimal, slot)
    assert claims(first).signing_key != claims(second).signing_key
    assert claims(first).channel_key != claims(second).channel_key


async def test_an_upgrade_takes_state_over_when_its_manifest_says_so(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgeclave.enclave")
    signer, slot = Signer.make(), Slot()
    first = await start(minimal_package(tmp_path / "1", signer), slot)
    slot.record(await call(first, "publish", 1))
    await first.kill()
    upgrade = minimal_package(tmp_path / "2", signer, security_version=5, accept_state_from_svn=1)
    second = await start(upgrade, slot)
    opened = verify_open(second.started.open_record, claims(second).signing_key)
    assert opened.record.predecessor == first.started.instance_id
    assert opened.record.identity.security_version == 5
    sealer = first.started.identity.unique_id.hex()
    assert await seen(caplog, f"state of security version 1, unique_id {sealer}, is taken over")


async def seen(caplog: pytest.LogCaptureFixture, message: str) -> bool:
    """Log lines come by another way than the reply."""
    for _ in range(100):
        if message in caplog.messages:
            return True
        await asyncio.sleep(0.02)
    return False


async def test_evidence_of_a_debug_build_says_so_and_production_policies_refuse_it(
    start: Start, emulator: Emulator, tmp_path: Path
) -> None:
    package = minimal_package(tmp_path / "package", debug=True)
    enclave = await start(package)
    identity = enclave.started.identity
    assert identity.debug
    nonce = b"nonce of 16 byte"
    evidence = await enclave.evidence(nonce)
    policy = Policy(
        anchors=(Anchor("emulator", "emulated", emulator_key(emulator)),),
        runtime={"emulator": Reference({"digest": runtime_digest()})},
        classes=frozenset({"emulated"}),
        trusted_apps=(TrustedApp(identity.signer_id, identity.product_id),),
    )
    for changed, code in (
        (replace(policy, classes=frozenset({"sgx"})), "class-not-accepted"),
        (policy, "debug-trusted-app"),
    ):
        with pytest.raises(EdgeclaveError) as refused:
            Verifier(changed).verify(evidence, nonce=nonce, now=0)
        assert refused.value.code == code
    accepted = Verifier(replace(policy, debug=True)).verify(evidence, nonce=nonce, now=0)
    assert (accepted.identity.debug, accepted.storage_level, accepted.epoch.source) == (True, "consistent", "none")


def emulator_key(emulator: Emulator) -> ec.EllipticCurvePublicKey:
    key = load_der_public_key(emulator.anchor())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        pytest.param({"security_version": 2}, {}, "security-version-too-low", id="a downgrade"),
        pytest.param(
            {},
            {"security_version": 2, "accept_state_from_svn": 2},
            "sealer-too-old",
            id="an upgrade that does not take over",
        ),
        pytest.param({}, {"product_id": 2}, "sealed-by-another", id="another product"),
        pytest.param({}, {"debug": True}, "sealed-in-another-debug-state", id="a debug build"),
    ],
)
async def test_state_of_another_release_is_refused(
    start: Start, emulator: Emulator, tmp_path: Path, before: dict[str, object], after: dict[str, object], code: str
) -> None:
    signer, slot = Signer.make(), Slot()
    await start(minimal_package(tmp_path / "before", signer, **before), slot)
    package = minimal_package(tmp_path / "after", signer, **after)
    assert await refusal(emulator, package, slot.request(None)) == code


async def test_another_signer_cannot_take_a_slot_over(start: Start, emulator: Emulator, tmp_path: Path) -> None:
    slot = Slot()
    await start(minimal_package(tmp_path / "1"), slot)
    assert await refusal(emulator, minimal_package(tmp_path / "2"), slot.request(None)) == "sealed-by-another"


async def test_a_changed_root_key_is_named_and_is_never_an_empty_store(
    start: Start, minimal: HandmadePackage, other_device: Emulator
) -> None:
    slot = Slot()
    await start(minimal, slot)
    assert await refusal(other_device, minimal, slot.request(None)) == "platform-key-changed"


async def test_state_of_another_slot_is_refused(start: Start, emulator: Emulator, minimal: HandmadePackage) -> None:
    slot = Slot("one")
    await start(minimal, slot)
    slot.name = "two"
    assert await refusal(emulator, minimal, slot.request(None)) == "sealed-for-another-context"


async def test_damaged_state_is_refused(start: Start, emulator: Emulator, minimal: HandmadePackage) -> None:
    slot = Slot()
    await start(minimal, slot)
    assert slot.state is not None
    slot.state = slot.state[:-1] + bytes([slot.state[-1] ^ 1])
    assert await refusal(emulator, minimal, slot.request(None)) == "sealed-data-damaged"


async def test_a_shown_result_that_does_not_verify_is_refused(
    start: Start, emulator: Emulator, minimal: HandmadePackage
) -> None:
    slot = Slot()
    enclave = await start(minimal, slot)
    slot.record(await call(enclave, "publish", 1))
    sealed = slot.shown["out"]
    slot.shown["out"] = sealed[:-1] + bytes([sealed[-1] ^ 1])
    assert await refusal(emulator, minimal, slot.request(None)) == "shown-result-refused"


async def test_recipient_sets_only_go_up_even_over_a_restart(start: Start, minimal: HandmadePackage) -> None:
    slot = Slot()
    first = await start(minimal, slot)
    changed = await first.set_recipients("out", minimal.signer.recipients(version=3))
    assert (changed.version, changed.state is not None) == (3, True)
    (result,) = (await call(first, "publish", 1)).results
    assert verify_result(result.sealed, claims(first).signing_key).header.recipients[0] == 3
    with pytest.raises(EdgeclaveError, match="recipient-set-too-old"):
        await first.set_recipients("out", minimal.signer.recipients(version=2))
    slot.state = changed.state
    await first.kill()
    with pytest.raises(EdgeclaveError, match="recipient-set-too-old"):
        await start(minimal, slot)  # which offers version 1 again


async def test_each_beacon_is_answered_once_with_a_heartbeat(start: Start, minimal: HandmadePackage) -> None:
    slot = Slot()
    enclave = await start(minimal, slot)
    outcome = await enclave.beacon(minimal.signer.beacon(7))
    (heartbeat,) = outcome.results
    verified = verify_result(heartbeat.sealed, claims(enclave).signing_key)
    assert verified.header.beacon == (7, (7).to_bytes(16, "big"))
    assert open_result(verified, minimal.signer.reader) == b""
    with pytest.raises(EdgeclaveError, match="beacon-too-old"):
        await enclave.beacon(minimal.signer.beacon(7))
    unasked = read_eat(decode_collection(await enclave.evidence(None)).eat)
    assert unasked.nonce == (7).to_bytes(16, "big")
    slot.state = outcome.state
    await enclave.kill()
    again = await start(minimal, slot)
    assert claims(again).nonce == (7).to_bytes(16, "big")


async def test_evidence_carries_the_nonce_that_was_asked_for(start: Start, minimal: HandmadePackage) -> None:
    enclave = await start(minimal)
    assert claims(enclave).nonce is None
    assert read_eat(decode_collection(await enclave.evidence(b"n" * 32)).eat).nonce == b"n" * 32
    assert reply(await call(enclave, "echo", 1)) == 1
