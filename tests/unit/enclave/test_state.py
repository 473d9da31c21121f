from __future__ import annotations

import msgspec
import pytest

from edgeclave.cose import dcbor, sha256
from edgeclave.enclave.sealing import SealingKeys
from edgeclave.enclave.state import EpochRecord, Snapshot, StateVault
from edgeclave.errors import EnclaveError
from edgeclave.results.beacon import Beacon

from .conftest import FakeHardware, identity_of


def vault(slot: str = "slot") -> StateVault:
    return StateVault(SealingKeys(FakeHardware(), identity_of(), "state", accept_from=3), slot)


SNAPSHOT = Snapshot(
    epoch=EpochRecord(4, b"key", bytes(32)),
    entries={"a": "1"},
    counters={"n": 2},
    recipients={"out": (3, bytes(32))},
    beacon=Beacon(5, bytes(16)),
)


def test_each_snapshot_names_the_one_before() -> None:
    first_blob, first = vault().seal(SNAPSHOT)
    second_blob, _ = vault().seal(first)
    opened, _ = vault().open(second_blob)
    assert (first.version, opened.version) == (1, 2)
    assert first.previous == sha256(first_blob)
    assert opened.entries == {"a": "1"}


def test_what_is_opened_is_what_sealing_went_on_with() -> None:
    blob, continued = vault().seal(SNAPSHOT)
    assert vault().open(blob)[0] == continued


def test_state_of_another_slot_is_refused() -> None:
    blob, _ = vault("one").seal(SNAPSHOT)
    with pytest.raises(EnclaveError) as refusal:
        vault("two").open(blob)
    assert refusal.value.code == "sealed-for-another-context"


def test_a_form_of_a_later_release_is_named() -> None:
    keys = SealingKeys(FakeHardware(), identity_of(), "state", accept_from=3)
    later = msgspec.structs.replace(SNAPSHOT, version=1)
    fields = {**msgspec.to_builtins(later, builtin_types=(bytes,)), "format": 2}
    blob = keys.seal("product", dcbor(fields), dcbor(["edgeclave/state/1", "slot"]))
    with pytest.raises(EnclaveError) as refusal:
        vault().open(blob)
    assert refusal.value.code == "malformed-state"
