"""An upgrade of a Python trusted application, which takes long to compile: calls are answered meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from edgeclave.edge.link import LinkError
from edgeclave.results.sealed import peek_result
from tests.fixtures.builds import TRUSTED_APPS, BuiltPackage, build_package
from tests.fixtures.waiting import eventually

NEW = (3, 3)
COMPILING_SECONDS = 300  # on a machine that does much else


@pytest.fixture(scope="module")
def upgrade(probe: BuiltPackage) -> BuiltPackage:
    """The same code under a higher security version: to the cache of compiled code it is another package."""
    return build_package(TRUSTED_APPS / "probe", probe.path.parent, security_version=3)


@dataclass(frozen=True)
class Answer:
    """Of one call: by which security version in which epoch, None when refused; whether a compiler runs afterwards."""

    by: tuple[int, int] | None
    compiling: bool


@pytest.mark.timeout(3 * COMPILING_SECONDS)
async def test_calls_go_on_while_an_upgrade_compiles_even_if_the_runner_is_killed(
    device: Any, entry: Any, invoke: Any, upgrade: BuiltPackage
) -> None:
    await device.deploy({"probe": entry()})
    await device.running()
    async with device.link() as link:

        async def call() -> Answer:
            await asyncio.sleep(0.05)  # a caller that never acknowledges may have 10,000 answers
            try:
                (result,) = (await invoke(link, "emit", {"n": 1})).results
            except LinkError:
                return Answer(None, compiles(device))
            header = peek_result(result.sealed).header
            return Answer((header.security_version, header.epoch), compiles(device))

        async def calls_until(enough: Callable[[list[Answer]], bool]) -> list[Answer]:
            answers = [await call()]
            async with asyncio.timeout(COMPILING_SECONDS):
                while not enough(answers) and answers[-1].by != NEW:
                    answers.append(await call())
            return answers

        await device.deploy({"probe": entry(upgrade)})
        before = await calls_until(lambda answers: sum(answer.compiling for answer in answers) == 5)
        assert {answer.by for answer in before} == {(2, 1)}, before

        await device.kill_runner()
        await device.start_runner()
        after = await calls_until(lambda answers: sum(answer.compiling for answer in answers) == 5)
        assert {answer.by for answer in after if answer.compiling} == {(2, 2)}, after

        switch = await calls_until(lambda _: False)
    assert [by for by, _ in groupby(answer.by for answer in switch)] in ([(2, 2), NEW], [(2, 2), None, NEW]), switch
    assert {answer.by for answer in switch if answer.compiling} <= {(2, 2)}, switch
    reported = await device.wait_for(lambda entry: (entry.get("securityVersion"), entry.get("epoch")) == NEW)
    assert (reported["state"], reported["restarts"]) == ("running", 0)
    await eventually(lambda: opened(device) == ["evidence+cbor", "open+cose"] * 3)


def opened(device: Any) -> list[str]:
    """How instances began, in the order of arrival at the hub; what a killed runner had to send again counts once."""
    arrived = {body: kind.rpartition("-")[2] for kind, _, body in device.upstream()}
    return [kind for kind in arrived.values() if kind != "close+cose"]


def compiles(device: Any) -> bool:
    """Whether a process that the runner started has started a compiler."""
    return any(
        b"edgeclave.enclave.compiler" in command(child)
        for one in children(device.runner.pid)
        for child in children(one)
    )


def children(process: int) -> list[int]:
    try:
        return [
            int(child)
            for task in Path(f"/proc/{process}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []  # it has ended


def command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
