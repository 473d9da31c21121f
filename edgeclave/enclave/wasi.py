"""An empty world for components whose toolchain links in WASI 0.2: time and randomness, and nothing else is there.

Own code and not wasmtime's, because that one starts threads at the first byte a guest prints, and this process may
start none. Whatever is not listed here ends the guest when it is called: there is no file, socket or stream it could
be called on. What is printed goes nowhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from wasmtime import Engine, StoreContext, WasmtimeError
from wasmtime.component import Linker, LinkerInstance, Record, ResourceAny, ResourceHost, ResourceType, Variant
from wasmtime.component._types import ComponentExtern, ComponentInstanceType, FuncType

MAX_RANDOM_BYTES = 64 << 10
_WRITABLE_BYTES = 4096  # what a stream says it takes at once; the most that WASI lets a guest write and wait for

_Function = Callable[..., Any]
# Resources by their name, which is unique in WASI 0.2; the same one appears in several interfaces.
_RESOURCES = (
    *("error", "pollable", "input-stream", "output-stream", "terminal-input", "terminal-output"),
    *("descriptor", "directory-entry-stream", "network", "tcp-socket", "udp-socket"),
    *("incoming-datagram-stream", "outgoing-datagram-stream", "resolve-address-stream"),
)


def define(linker: Linker, engine: Engine, imports: Mapping[str, ComponentExtern]) -> None:
    """Offers what `imports` names, which was checked before to be WASI and nothing else."""
    with linker.root() as root:
        for name, extern in imports.items():
            interface = name.partition("@")[0]
            wanted = extern.ty
            assert isinstance(wanted, ComponentInstanceType)
            with root.add_instance(name) as instance:
                _define_interface(instance, interface, wanted.exports(engine))


def _define_interface(instance: LinkerInstance, interface: str, wanted: Mapping[str, ComponentExtern]) -> None:
    offered = _OFFERED.get(interface, {})
    for name, extern in wanted.items():
        kind = extern.ty
        if isinstance(kind, ResourceType):
            if name not in _RESOURCES:
                raise WasmtimeError(f"{interface} has no resource {name}")
            instance.add_resource(name, ResourceType.host(_RESOURCES.index(name)), lambda _store, _rep: None)
        elif isinstance(kind, FuncType):
            instance.add_func(name, _letting_go(offered.get(name) or _missing(interface, name)))


def _letting_go(function: _Function) -> _Function:
    """Gives back what the guest lent for the call, which the component model insists on."""

    def host_function(store: StoreContext, *arguments: Any) -> Any:
        for argument in arguments:
            if isinstance(argument, ResourceAny):
                argument.drop(store)
        return function(store, *arguments)

    return host_function


def _missing(interface: str, name: str) -> _Function:
    def trap(_store: object, *_: object) -> None:
        raise WasmtimeError(f"there is no {interface}/{name} in the TEE")

    return trap


def _refuse_waiting(_store: object, *_: object) -> None:
    raise WasmtimeError("a trusted application cannot wait: there is no sleep in the TEE")


def _exit(_store: object, *_: object) -> None:
    raise WasmtimeError("the trusted application ended itself (exit)")


def _random_bytes(_store: object, count: int) -> bytes:
    if count > MAX_RANDOM_BYTES:
        raise WasmtimeError(f"{count} random bytes at once are over the limit of {MAX_RANDOM_BYTES}")
    return os.urandom(count)


def _random_number(_store: object) -> int:
    return int.from_bytes(os.urandom(8), "big")


def _wall_clock(_store: object) -> Record:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return _record(seconds=seconds, nanoseconds=nanoseconds)


def _record(**fields: int) -> Record:
    record = Record()
    record.__dict__.update(fields)
    return record


def _new(resource: str) -> _Function:
    return lambda _store: ResourceHost.own(0, _RESOURCES.index(resource))


def _always(value: Any) -> _Function:
    return lambda _store, *_: value


# wasmtime-py tells cases apart by their Python types where it can: `closed`, which carries nothing, is None as an error
# of `read`; where success carries nothing either, the case must be named.
_CLOSED = None
_DONE = Variant("ok")
_RANDOM: dict[str, _Function] = {
    "get-random-bytes": _random_bytes,
    "get-random-u64": _random_number,
    "get-insecure-random-bytes": _random_bytes,
    "get-insecure-random-u64": _random_number,
}
_OFFERED: dict[str, dict[str, _Function]] = {
    "wasi:cli/environment": {
        "get-environment": _always([]),
        "get-arguments": _always([]),
        "initial-cwd": _always(None),
    },
    "wasi:cli/exit": {"exit": _exit, "exit-with-code": _exit},
    "wasi:cli/stdin": {"get-stdin": _new("input-stream")},
    "wasi:cli/stdout": {"get-stdout": _new("output-stream")},
    "wasi:cli/stderr": {"get-stderr": _new("output-stream")},
    "wasi:cli/terminal-stdin": {"get-terminal-stdin": _always(None)},
    "wasi:cli/terminal-stdout": {"get-terminal-stdout": _always(None)},
    "wasi:cli/terminal-stderr": {"get-terminal-stderr": _always(None)},
    "wasi:clocks/monotonic-clock": {
        "now": lambda _store: time.monotonic_ns(),
        "resolution": _always(1),
        "subscribe-instant": _refuse_waiting,
        "subscribe-duration": _refuse_waiting,
    },
    "wasi:clocks/wall-clock": {"now": _wall_clock, "resolution": _always(_record(seconds=0, nanoseconds=1))},
    "wasi:filesystem/preopens": {"get-directories": _always([])},
    "wasi:filesystem/types": {"filesystem-error-code": _always(None)},
    "wasi:io/poll": {"poll": _refuse_waiting, "[method]pollable.block": _refuse_waiting},
    "wasi:io/streams": {
        **{f"[method]input-stream.{name}": _always(_CLOSED) for name in ("read", "blocking-read", "skip")},
        "[method]output-stream.check-write": _always(_WRITABLE_BYTES),
        **{
            f"[method]output-stream.{name}": _always(_DONE)
            for name in ("write", "flush", "blocking-flush", "blocking-write-and-flush")
        },
    },
    "wasi:random/random": _RANDOM,
    "wasi:random/insecure": _RANDOM,
    "wasi:random/insecure-seed": {
        "insecure-seed": lambda store: (_random_number(store), _random_number(store)),
    },
    "wasi:sockets/instance-network": {"instance-network": _new("network")},
    "wasi:sockets/ip-name-lookup": {"resolve-addresses": _always("access-denied")},
    "wasi:sockets/tcp-create-socket": {"create-tcp-socket": _always("access-denied")},
    "wasi:sockets/udp-create-socket": {"create-udp-socket": _always("access-denied")},
}
