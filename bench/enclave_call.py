"""A call with 1 KiB of JSON of a C trusted application as the enclave runs it, against wasmtime-py calling it bare.

A process of its own plays the enclave, because starting an instance locks its process down for good.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from wasmtime import Config, Engine, Store
from wasmtime.component import Component, Linker

from bench.row import Row, side_by_side
from edgeclave import cose
from edgeclave.enclave.emulated_hardware import EmulatedHardware, EmulatorSecrets
from edgeclave.enclave.files import Files
from edgeclave.enclave.messages import CallRequest, StartRequest
from edgeclave.enclave.pipe import Pipe
from edgeclave.enclave.starting import start
from edgeclave.ta.world import WORLD
from edgeclave.ta.wrapping import as_component
from tests.fixtures.builds import TRUSTED_APPS, build_package

PAYLOAD = '{"data":"' + "x" * 1013 + '"}'
ROUNDS, CALLS = 30, 100


def rows() -> list[Row]:
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as enclave,
    ):
        ours, reference = enclave.submit(_measure, Path(folder)).result()
    against = "bare wasmtime-py call of the same function"
    return [Row("TA call inside the enclave process (1 KiB JSON, C TA)", against, "µs", ours, reference, 2.0)]


def _measure(folder: Path) -> tuple[float, float]:
    package = build_package(TRUSTED_APPS / "probe_c", folder)
    echo = bare_echo(as_component(package.wasm.read_bytes()))

    def bare() -> object:
        return echo(PAYLOAD)

    key = cose.generate_key().private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    hardware = EmulatedHardware(EmulatorSecrets(root=os.urandom(32), attestation_key=key))
    files = Files(os.open(package.path, os.O_RDONLY), None, None)
    instance, _ = start(StartRequest(slot="bench", host_time=0), files, hardware, Pipe(-1, -1))
    call = CallRequest(id="1", method="echo", payload=PAYLOAD, host_time=0)
    assert instance.call(call).reply == bare() == PAYLOAD
    return side_by_side(lambda: instance.call(call), bare, rounds=ROUNDS, calls=CALLS)


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
