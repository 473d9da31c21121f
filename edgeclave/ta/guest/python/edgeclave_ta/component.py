"""The Wasm side: the WIT's `invoke` on one end, its `tee` interface on the other. Imported only inside a component."""

from __future__ import annotations

import linecache
import random
from pathlib import Path
from types import ModuleType
from typing import Any

from componentize_py_types import Err  # type: ignore[import-not-found]
from wit_world import Failure as WitFailure  # type: ignore[import-not-found]
from wit_world.imports import tee as wit  # type: ignore[import-not-found]

from . import tee
from ._app import Failure, TrustedApp

_STORAGE_LEVELS: dict[Any, tee.StorageLevel] = {
    wit.StorageLevel.CONSISTENT: "consistent",
    wit.StorageLevel.ROLLBACK_PROTECTED: "rollback-protected",
}
_ASSURANCES: dict[Any, tee.Assurance] = {
    wit.Assurance.NONE: "none",
    wit.Assurance.CONFIDENTIAL: "confidential",
    wit.Assurance.AUTHENTICATED: "authenticated",
}
_POLICIES: dict[tee.SealPolicy, Any] = {"unique": wit.SealPolicy.UNIQUE, "product": wit.SealPolicy.PRODUCT}
_POLICY_NAMES: dict[Any, tee.SealPolicy] = {policy: name for name, policy in _POLICIES.items()}


class WitServices:
    """The TEE's services through the component's imports."""

    def seal(self, policy: tee.SealPolicy, plaintext: str, context: str) -> str:
        return str(_ask(wit.seal, _POLICIES[policy], plaintext, context))

    def unseal(self, sealed: str, context: str) -> tee.Unsealed:
        unsealed = _ask(wit.unseal, sealed, context)
        by = unsealed.sealed_by
        return tee.Unsealed(
            unsealed.plaintext,
            tee.Provenance(_POLICY_NAMES[by.policy], by.signer_id, by.product_id, by.security_version, by.unique_id),
        )

    def get(self, key: str) -> str | None:
        value: str | None = _ask(wit.get, key)
        return value

    def put(self, key: str, value: str) -> None:
        _ask(wit.put, key, value)

    def delete(self, key: str) -> None:
        _ask(wit.delete, key)

    def emit(self, output: str, payload: str) -> int:
        return int(_ask(wit.emit, output, payload))

    def evidence(self, nonce: str) -> str:
        return str(_ask(wit.evidence, nonce))

    def increment(self, counter: str) -> int:
        return int(_ask(wit.increment, counter))

    def random(self, count: int) -> str:
        return str(wit.random(count))

    def storage_protection(self) -> tee.StorageLevel:
        return _STORAGE_LEVELS[wit.storage_protection()]

    def caller(self) -> tee.Caller:
        caller = wit.caller()
        return tee.Caller(_ASSURANCES[caller.assurance], caller.name)

    def emulated(self) -> bool:
        return bool(wit.emulated())

    def host_time(self) -> int:
        return int(wit.host_time())

    def log(self, level: int, message: str) -> None:
        wit.log(level, message)


class Component:
    """What the generated entry module exports as the WIT's world."""

    def __init__(self, application: ModuleType) -> None:
        app = getattr(application, "app", None)
        if not isinstance(app, TrustedApp):
            raise TypeError("app.py must define `app = TrustedApp()`")
        self._app = app
        self._seeded = False
        _keep_source_lines(application)
        tee.use(WitServices())

    def invoke(self, method: str, payload: str) -> str:
        if not self._seeded:
            # Python's generator was seeded while the component was built: every instance would repeat it.
            random.seed()
            self._seeded = True
        try:
            return self._app.invoke(method, payload)
        except Failure as failure:
            raise Err(WitFailure(failure.status, failure.message)) from failure


def _keep_source_lines(module: ModuleType) -> None:
    """Keeps the source of a module and of those beside it, so that tracebacks show it where there are no files."""
    for path in Path(str(module.__file__)).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8", errors="replace")
        # No modification time: linecache then never looks for the file.
        linecache.cache[str(path)] = (len(text), None, text.splitlines(keepends=True), str(path))


def _ask(service: Any, *arguments: Any) -> Any:
    try:
        return service(*arguments)
    except Err as error:
        raise tee.TeeError(str(error.value)) from None
