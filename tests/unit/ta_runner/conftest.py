from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from ta_runner.delivery import Delivery
from ta_runner.metrics import RunnerMetrics
from ta_runner.store import RunnerStore

from edgeclave.cose import spki
from edgeclave.edge.link import Call
from edgeclave.edge.outbox import Outbox
from edgeclave.edge.twins.trusted_apps import TrustedAppSettings
from edgeclave.ta.build.output import write_package
from edgeclave.ta.manifest import Manifest, Method, Output
from edgeclave.ta.package import read_package
from edgeclave.ta.signature import sign_package, verify_package
from edgeclave.ta.signing import signing_key


@dataclasses.dataclass(frozen=True)
class SmallPackage:
    """A signed package whose Wasm is only a few bytes."""

    path: Path
    digest: str
    signer: str

    def settings(self, **changes: Any) -> TrustedAppSettings:
        members = {"package": str(self.path), "digest": self.digest, "signer": self.signer, **changes}
        return TrustedAppSettings(**members)


MakePackage = Callable[..., SmallPackage]


@pytest.fixture
def make_package(tmp_path: Path) -> MakePackage:
    def make(wasm: bytes = b"\0asm", *, signer: str = "developer", security_version: int = 1) -> SmallPackage:
        key, chain = signing_key(tmp_path / "keys", signer)
        authority = spki(key.public_key())
        manifest = Manifest(
            name="small",
            version="1.0.0",
            product_id=1,
            security_version=security_version,
            accept_state_from_svn=security_version,
            services=(),
            methods={"echo": Method()},
            outputs={"out": Output(authority)},
            beacon_authority=authority,
        )
        path = tmp_path / f"{signer}-{len(wasm)}-{security_version}.ta"
        digest = write_package(path, wasm, sign_package(manifest, wasm, key, chain), {})
        return SmallPackage(path, digest, verify_package(read_package(path)).identity.signer_id.hex())

    return make


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunnerStore]:
    store = RunnerStore(tmp_path / "runner.sqlite")
    yield store
    store.close()


@pytest.fixture
def outbox(store: RunnerStore) -> Outbox:
    return Outbox(store.connection)


@pytest.fixture
def metrics() -> RunnerMetrics:
    return RunnerMetrics(CollectorRegistry())


@pytest.fixture
def delivery(store: RunnerStore, outbox: Outbox) -> Delivery:
    return Delivery(store, outbox)


@pytest.fixture
def call_message() -> Callable[..., Call]:
    def make(method: str = "emit", call_id: str = "1", **changes: Any) -> Call:
        members = {"payload": "{}", "caller": "azureiot://h/devices/d/modules/m", "deadline_ms": 5000, **changes}
        return Call(trusted_app="small", method=method, call_id=call_id, **members)

    return make
