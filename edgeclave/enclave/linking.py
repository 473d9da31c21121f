"""Binds the services to a component: names and types of the WIT on one side, `Services` on the other.

wasmtime-py tells the two cases of a WIT result apart by their Python types; where both are strings, as in
`result<string, string>`, the case must be named with a Variant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wasmtime import Engine, WasmtimeError
from wasmtime.component import Linker, LinkerInstance, Record, Variant
from wasmtime.component._types import ComponentExtern

from edgeclave.enclave import wasi
from edgeclave.enclave.imports import TEE_INTERFACE, is_wasi
from edgeclave.enclave.messages import Caller
from edgeclave.enclave.sealing import Provenance
from edgeclave.enclave.services import GrantMissingError, Services
from edgeclave.enclave.transaction import ServiceError

Function = Callable[..., Any]


def make_linker(engine: Engine, imports: Mapping[str, ComponentExtern], services: Services) -> Linker:
    """A linker that offers what `imports` names: the TEE, and an empty WASI where a toolchain needs one."""
    linker = Linker(engine)
    wasi.define(linker, engine, {name: extern for name, extern in imports.items() if is_wasi(name)})
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
