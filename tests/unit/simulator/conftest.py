from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeclave.simulator.identities import Identities, IdentityName
from edgeclave.simulator.store import Store
from edgeclave.simulator.twins import Twins

DEVICE = IdentityName("edge01")
MODULE = IdentityName("edge01", "m1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def identities(store: Store) -> Identities:
    made = Identities(store, "127.9.9")
    made.create(DEVICE, iot_edge=True)
    made.create(MODULE)
    return made


@pytest.fixture
def twins(store: Store, identities: Identities) -> Twins:
    return Twins(store)
