"""Call a trusted application as plain Python, with services in memory that behave like the TEE's.

    from pathlib import Path
    from edgeclave_ta.testing import Harness
    from app import app

    def test_it_counts() -> None:
        tee = Harness(app, manifest=Path("ta.toml"))
        assert tee.invoke("observe", {"temperature": 21}) == {"accepted": True}
        assert tee.emitted[0].payload == {"temperature": 21}

Nothing here is encrypted or signed; it is about the application's own logic.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import tee
from ._app import Failure, TrustedApp
from ._json import to_json

__all__ = ["Emitted", "Failure", "Harness"]


@dataclass(frozen=True)
class Emitted:
    """One committed result."""

    output: str
    sequence: int
    payload: Any


@dataclass
class _State:
    storage: dict[str, str] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    emitted: list[Emitted] = field(default_factory=list)


class Harness:
    """One instance of a trusted application. A call that fails commits nothing, as in the TEE.

    Args:
        app: the application.
        manifest: its `ta.toml`; then undeclared methods, outputs and services are refused as the enclave refuses them.
        caller: who calls.
        host_time: what the host's clock says, in milliseconds since 1970; assign `harness.host_time` to move it.
        storage_protection: the level the platform offers, at least what the manifest requires.
    """

    def __init__(
        self,
        app: TrustedApp,
        *,
        manifest: Path | None = None,
        caller: tee.Caller = tee.Caller("none", "test"),  # noqa: B008 - frozen
        host_time: int = 0,
        storage_protection: tee.StorageLevel | None = None,
    ) -> None:
        declared = tomllib.loads(manifest.read_text(encoding="utf-8")) if manifest else {}
        required: tee.StorageLevel = declared.get("storage_protection", "consistent")
        if storage_protection == "consistent" != required:
            raise ValueError(
                "the manifest requires rollback-protected storage: without it the application is not started"
            )
        self._app = app
        self._state = _State()
        self._methods: set[str] | None = set(declared.get("methods", {})) if manifest else None
        self._outputs: set[str] | None = set(declared.get("outputs", {})) if manifest else None
        self._granted: set[str] | None = set(declared.get("services", [])) if manifest else None
        self.caller = caller
        self.host_time = host_time
        self._storage_protection = storage_protection or required
        self._product = (declared.get("product_id", 0), declared.get("security_version", 0))
        self.logs: list[tuple[int, str]] = []

    @property
    def storage(self) -> dict[str, str]:
        """Trusted storage as committed; a test may change it."""
        return self._state.storage

    @property
    def counters(self) -> dict[str, int]:
        return self._state.counters

    @property
    def emitted(self) -> list[Emitted]:
        return self._state.emitted

    def invoke(self, method: str, payload: Any = None) -> Any:
        """Calls a method, with a dataclass if you like, and returns its decoded reply.

        Raises:
            Failure: as the caller would get it.
        """
        return json.loads(self.invoke_text(method, to_json(payload)))

    def invoke_text(self, method: str, payload: str) -> str:
        """Calls a method with JSON text and returns the text of its reply."""
        if self._methods is not None and method not in self._methods:
            raise Failure(404, f"there is no method {method}")
        committed = copy.deepcopy(self._state)
        before = tee.use(_Services(self))
        try:
            return self._app.invoke(method, payload)
        except BaseException:
            self._state = committed
            raise
        finally:
            tee.use(before)

    def _need(self, service: str) -> _State:
        if self._granted is not None and service not in self._granted:
            raise tee.TeeError(f"service {service} is not granted")
        return self._state


class _Services:
    """`tee.Services` over a harness."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    def seal(self, policy: tee.SealPolicy, plaintext: str, context: str) -> str:
        self._harness._need("seal")
        return base64.urlsafe_b64encode(json.dumps([policy, context, plaintext]).encode()).decode()

    def unseal(self, sealed: str, context: str) -> tee.Unsealed:
        self._harness._need("seal")
        try:
            policy, sealed_context, plaintext = json.loads(base64.urlsafe_b64decode(sealed))
        except ValueError:
            raise tee.TeeError("this is not sealed data") from None
        if sealed_context != context:
            raise tee.TeeError("it was sealed with another context")
        product_id, security_version = self._harness._product
        return tee.Unsealed(plaintext, tee.Provenance(policy, "0" * 64, product_id, security_version, "0" * 64))

    def get(self, key: str) -> str | None:
        return self._harness._need("storage").storage.get(key)

    def put(self, key: str, value: str) -> None:
        self._harness._need("storage").storage[key] = value

    def delete(self, key: str) -> None:
        self._harness._need("storage").storage.pop(key, None)

    def emit(self, output: str, payload: str) -> int:
        emitted = self._harness._need("emit").emitted
        if self._harness._outputs is not None and output not in self._harness._outputs:
            raise tee.TeeError("unknown output")
        sequence = 1 + sum(one.output == output for one in emitted)
        emitted.append(Emitted(output, sequence, json.loads(payload)))
        return sequence

    def evidence(self, nonce: str) -> str:
        self._harness._need("evidence")
        return base64.urlsafe_b64encode(b"no evidence in a unit test: " + nonce.encode()).decode().rstrip("=")

    def increment(self, counter: str) -> int:
        counters = self._harness._need("counter").counters
        counters[counter] = counters.get(counter, 0) + 1
        return counters[counter]

    def random(self, count: int) -> str:
        self._harness._need("random")
        return base64.urlsafe_b64encode(os.urandom(count)).decode().rstrip("=")

    def storage_protection(self) -> tee.StorageLevel:
        return self._harness._storage_protection

    def caller(self) -> tee.Caller:
        return self._harness.caller

    def emulated(self) -> bool:
        return True

    def host_time(self) -> int:
        self._harness._need("host-time")
        return self._harness.host_time

    def log(self, level: int, message: str) -> None:
        self._harness.logs.append((level, message))
