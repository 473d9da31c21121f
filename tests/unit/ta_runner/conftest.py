from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ta_runner.desired import TrustedAppSettings

from edgeclave.ta.manifest import Manifest, Method
from edgeclave.ta.package import read_package, write_package
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
        manifest = Manifest(
            name="small",
            version="1.0.0",
            product_id=1,
            security_version=security_version,
            accept_state_from_svn=security_version,
            services=(),
            methods={"echo": Method()},
            outputs={},
        )
        path = tmp_path / f"{signer}-{len(wasm)}-{security_version}.ta"
        digest = write_package(path, wasm, sign_package(manifest, wasm, key, chain), {})
        return SmallPackage(path, digest, verify_package(read_package(path)).identity.signer_id.hex())

    return make
