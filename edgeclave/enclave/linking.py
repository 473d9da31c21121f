"""Binds the services to a component: names and types of the WIT on one side, `Services` on the other.

wasmtime-py tells the two cases of a WIT result apart by their Python types; where both are strings, as in
`result<string, string>`, the case must be named with a Variant.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from wasmtime import Engine, WasmtimeError
from wasmtime.component import Linker, LinkerInstance, Record, Variant

from edgeclave.enclave.imports import TEE_INTERFACE, is_wasi
from edgeclave.enclave.messages import Caller
from edgeclave.enclave.sealing import Provenance
from edgeclave.enclave.services import GrantMissingError, Services
from edgeclave.enclave.transaction import ServiceError

Function = Callable[..., Any]


def make_linker(engine: Engine, imports: Iterable[str], services: Services) -> Linker:
    """A linker that offers what `imports` names: the TEE, and an empty WASI where a toolchain needs one."""
    names = tuple(imports)
    linker = Linker(engine)
    if any(is_wasi(name) for name in names):
        linker.add_wasip2()
        linker.allow_shadowing = True
        _take_away_waiting_and_sockets(linker, names)
    with linker.root() as root, root.add_instance(TEE_INTERFACE) as tee:
        _add_services(tee, services)
    return linker


def _add_services(tee: LinkerInstance, services: Services) -> None:
    named_ok = lambda value: Variant("ok", value)  # noqa: E731
    named_error = lambda message: Variant("err", message)  # noqa: E731
    for name, function, ok, error in (
        ("seal", services.seal, named_ok, named_error),
        ("unseal", services.unseal, _unsealed, str),
        ("get", services.get, named_ok, named_error),
        ("put", services.put, _as_it_is, str),
        ("delete", services.delete, _as_it_is, str),
        ("emit", services.emit, _as_it_is, str),
        ("evidence", services.evidence, named_ok, named_error),
        ("increment", services.increment, _as_it_is, str),
        ("random", services.random, _as_it_is, None),
        ("storage-protection", services.storage_protection, _as_it_is, None),
        ("caller", services.caller, _caller, None),
        ("emulated", services.emulated, _as_it_is, None),
        ("host-time", services.host_time, _as_it_is, None),
        ("log", services.log, _as_it_is, None),
    ):
        tee.add_func(name, _guarded(function, ok, error))


def _guarded(function: Function, ok: Function, error: Function | None) -> Function:
    """`error` makes the WIT's error case of a message; without one there is only a trap.

    Nothing but WasmtimeError may leave a host function: wasmtime-py keeps any other exception in a global of the module
    and raises it from whatever call fails next.
    """

    def host_function(_store: object, *arguments: Any) -> Any:
        try:
            return ok(function(*arguments))
        except (ServiceError, GrantMissingError) as refusal:
            if error is not None:
                return error(str(refusal))
            raise WasmtimeError(str(refusal)) from None
        except WasmtimeError:
            raise
        except Exception as defect:
            raise WasmtimeError(f"the service failed: {type(defect).__name__}") from None

    return host_function


def _as_it_is(value: Any) -> Any:
    return value


def _unsealed(opened: tuple[str, Provenance]) -> Record:
    plaintext, provenance = opened
    sealer = provenance.identity
    sealed_by = _record(
        **{
            "policy": provenance.policy,
            "signer-id": sealer.signer_id.hex(),
            "product-id": sealer.product_id,
            "security-version": sealer.security_version,
            "unique-id": sealer.unique_id.hex(),
        }
    )
    return _record(**{"plaintext": plaintext, "sealed-by": sealed_by})


def _caller(caller: Caller) -> Record:
    return _record(assurance=caller.assurance, name=caller.name)


def _record(**fields: Any) -> Record:
    record = Record()
    record.__dict__.update(fields)
    return record


def _take_away_waiting_and_sockets(linker: Linker, names: Iterable[str]) -> None:
    """An empty WASI still lets a guest sleep, where no deadline reaches it, and make sockets it cannot connect."""

    def refuse_waiting(_store: object, _when: int) -> None:
        raise WasmtimeError("a trusted application cannot wait: there is no sleep in the TEE")

    replaced: dict[str, dict[str, Function]] = {
        "wasi:clocks/monotonic-clock": {
            "now": lambda _store: time.monotonic_ns(),
            "resolution": lambda _store: 1,
            "subscribe-instant": refuse_waiting,
            "subscribe-duration": refuse_waiting,
        },
        "wasi:sockets/tcp-create-socket": {"create-tcp-socket": lambda _store, _family: "access-denied"},
        "wasi:sockets/udp-create-socket": {"create-udp-socket": lambda _store, _family: "access-denied"},
    }
    with linker.root() as root:
        for name in names:
            functions = replaced.get(name.partition("@")[0])
            if functions is None:
                continue
            with root.add_instance(name) as instance:
                for function_name, function in functions.items():
                    instance.add_func(function_name, function)
