"""A simulator in a process of its own, so that what measures does not share an interpreter with it."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from edgeclave.simulator import SimulatorThread

Described = TypeVar("Described")
Describe = Callable[[SimulatorThread], Described]


@contextmanager
def simulator_process(describe: Describe[Described]) -> Iterator[Described]:
    """What `describe` tells of the simulator, which runs until the end of the block. It is called in that process."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        near, far = context.Pipe()
        process = context.Process(target=_simulate, args=(Path(folder), describe, far))
        process.start()
        try:
            described: Described = near.recv()
            yield described
        finally:
            near.send(None)
            process.join(20)
            near.close()


def _simulate(folder: Path, describe: Describe[Described], pipe: Connection) -> None:
    with SimulatorThread(folder / "sim") as simulator:
        pipe.send(describe(simulator))
        pipe.recv()
