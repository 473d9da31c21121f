from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave.cose import generate_key, spki
from edgeclave.ta.build import GUEST_PYTHON
from edgeclave.ta.manifest import Manifest, Method, Output


@pytest.fixture(scope="session")
def authority() -> ec.EllipticCurvePrivateKey:
    return generate_key()


@pytest.fixture(scope="session")
def manifest(authority: ec.EllipticCurvePrivateKey) -> Manifest:
    return Manifest(
        name="thermometer",
        version="1.2.0",
        product_id=1,
        security_version=3,
        accept_state_from_svn=2,
        services=("emit", "log"),
        methods={"observe": Method("any", '{"type":"object"}'), "ask": Method("confidential")},
        outputs={"summary": Output(spki(authority.public_key()))},
    )


@pytest.fixture
def manifest_map(manifest: Manifest) -> dict[str, Any]:
    """A map that a test may break."""
    return manifest.to_map()


@pytest.fixture
def guest_sdk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`edgeclave_ta` importable, as a developer's own tests have it."""
    monkeypatch.syspath_prepend(str(GUEST_PYTHON))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "edgeclave_ta"]:
        del sys.modules[name]
