"""`python -m bench.inside_enclave PACKAGE WASM`: prints the microseconds of a call in an enclave, and of a bare one.

It imports nothing that an enclave may not: starting an instance refuses code that its evidence would not cover, and
locks the process down for good.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from wasmtime import Config, Engine, Store
from wasmtime.component import Component, Linker

from bench.row import side_by_side
from edgeclave import cose
from edgeclave.enclave.emulated_hardware import EmulatedHardware, EmulatorSecrets
from edgeclave.enclave.files import Files
from edgeclave.enclave.messages import CallRequest, StartRequest
from edgeclave.enclave.pipe import Pipe
from edgeclave.enclave.starting import start
from edgeclave.ta.world import WORLD
from edgeclave.ta.wrapping import as_component

PAYLOAD = '{"data":"' + "x" * 1013 + '"}'
ROUNDS, CALLS = 30, 100


def main(package: Path, wasm: Path) -> None:
    echo = bare_echo(as_component(wasm.read_bytes()))

    def bare() -> object:
        return echo(PAYLOAD)

    key = cose.generate_key().private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    hardware = EmulatedHardware(EmulatorSecrets(root=os.urandom(32), attestation_key=key))
    files = Files(os.open(package, os.O_RDONLY), None, None)
    instance, _ = start(StartRequest(slot="bench", host_time=0), files, hardware, Pipe(-1, -1))
    call = CallRequest(id="1", method="echo", payload=PAYLOAD, host_time=0)
    assert instance.call(call).reply == bare() == PAYLOAD
    print(*side_by_side(lambda: instance.call(call), bare, rounds=ROUNDS, calls=CALLS), flush=True)


def bare_echo(wasm: bytes | str) -> Callable[[str], Any]:
    """The method `echo` of a trusted application, called by wasmtime-py with nothing around it."""
    configuration = Config()
    configuration.parallel_compilation = False  # its threads would be missing in the enclave's forked compiler
    engine = Engine(configuration)
    linker = Linker(engine)
    with linker.root() as root, root.add_instance(WORLD.interface) as tee:
        for name in WORLD.functions:
            tee.add_func(name, lambda *_: None)
    store = Store(engine)
    component = Component.from_file(engine, wasm) if isinstance(wasm, str) else Component(engine, wasm)
    invoke = linker.instantiate(store, component).get_func(store, "invoke")
    assert invoke is not None
    return lambda payload: invoke(store, "echo", payload)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
    os._exit(0)  # the filter allows no orderly end
