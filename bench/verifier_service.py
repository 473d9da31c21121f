"""`edgeclave verifier serve` against calling the verifier in a loop, one process each: throughput, tail at half load.

The load comes from another process over keep-alive connections; server and loop verify the same SGX evidence.
"""

from __future__ import annotations

import asyncio
import base64
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from bench.row import Row
from edgeclave.cloud.verifier_service.appraiser import Appraiser
from edgeclave.cloud.verifier_service.keyring import load_keyring, new_key, now_utc
from edgeclave.evidence.eat import report_data
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.policy_file import load_policy
from edgeclave.evidence.verifier import Verifier
from tests.fixtures.benches import IntelBench
from tests.fixtures.evidence_bench import NOW, Instance
from tests.fixtures.verifier_service import serving, stand_in_files

ROUNDS, SECONDS = 3, 2.0
CONNECTIONS = 8


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = IntelBench("sgx", 3)
        stand_in_files(folder, bench)
        new_key(folder / "keys", "one", now_utc())
        appraiser = _appraiser(folder)
        nonce, _ = appraiser.issue_nonce()
        instance = Instance(bench)
        eat = instance.eat(nonce=nonce)
        evidence = instance.evidence(eat=eat, quote=bench.quote(report_data(eat)))
        unlimited = ("--requests-per-second", "1000000", "--burst", "1000000")
        with serving(folder, "--at", str(NOW), *unlimited) as (url, _):
            return _measure(folder, url, evidence, nonce)


def _measure(folder: Path, url: str, evidence: bytes, nonce: bytes) -> list[Row]:
    appraiser, verifier = _appraiser(folder), _verifier(folder, nonce)
    body = {"evidence": _base64url(evidence), "nonce": _base64url(nonce)}
    url += "/v1/appraisals"
    asyncio.run(_load(url, body, seconds=0.5))
    served, looped, signed = [], [], []
    for _ in range(ROUNDS):
        served.append(len(asyncio.run(_load(url, body, seconds=SECONDS))) / SECONDS)
        looped.append(_loop(lambda: verifier.verify(evidence, nonce=nonce, now=NOW)))
        signed.append(_loop(lambda: appraiser.appraise_evidence(evidence, nonce)))
    rate = statistics.median(served)
    halves = [sorted(asyncio.run(_load(url, body, seconds=2 * SECONDS, per_second=rate / 2))) for _ in range(ROUNDS)]
    p50, p99 = (statistics.median(times[int(len(times) * part)] * 1000 for times in halves) for part in (0.5, 0.99))
    return [
        Row("verifier serve", "calling the verifier in a loop", "1/s", rate, statistics.median(looped), 0.5, True),
        Row("verifier serve", "the same with signing, in a loop", "1/s", rate, statistics.median(signed), 0.5, True),
        Row("verifier serve at half load, p99", "its p50", "ms", p99, p50, 5),
    ]


def _loop(call: Callable[[], Any]) -> float:
    calls, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < SECONDS:
        call()
        calls += 1
    return calls / (time.perf_counter() - begin)


async def _load(url: str, body: dict[str, str], *, seconds: float, per_second: float | None = None) -> list[float]:
    """Seconds of each answer; as fast as it goes, or evenly spread (an open loop: nobody waits for another)."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    connector = aiohttp.TCPConnector(limit=CONNECTIONS if per_second is None else 0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(due: float) -> None:
            async with session.post(url, json=body) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
            times.append(time.perf_counter() - due)

        async def ask_until_the_end() -> None:
            while (now := time.perf_counter()) < end:
                await ask(now)

        if per_second is None:
            await asyncio.gather(*(ask_until_the_end() for _ in range(CONNECTIONS)))
            return times
        begin, tasks = time.perf_counter(), []
        for number in range(int(seconds * per_second)):
            due = begin + number / per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(ask(due)))
        await asyncio.gather(*tasks)
    return times


def _appraiser(folder: Path) -> Appraiser:
    policy = load_policy(folder / "policy.toml")
    known = Endorsements(folders=[folder / "endorsements"])
    return Appraiser(policy, b"", known, load_keyring(folder / "keys", "https://verifier.example"), as_of=NOW)


def _verifier(folder: Path, nonce: bytes) -> Verifier:
    known = Endorsements(folders=[folder / "endorsements"])
    return Verifier(load_policy(folder / "policy.toml"), published={nonce: NOW}, endorsements=known)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
