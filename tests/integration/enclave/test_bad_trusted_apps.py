"""What a trusted application can do wrong, and what becomes of it: one status each, and the next call works.

The same tests run on the probe in Python and in C.
"""

from __future__ import annotations

import pytest

from edgeclave.evidence.collection import decode_collection
from edgeclave.evidence.eat import read_eat
from edgeclave.platforms.enclave_process import EnclaveProcess

from .conftest import call, now, reply, status

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("method", "payload", "code", "says", "poisoned"),
    [
        pytest.param("fail", {"status": 418, "message": "teapot"}, 418, "teapot", False, id="its own failure"),
        pytest.param("crash", "x", 500, {"python": "KeyError", "c": "sealed data"}, False, id="an unhandled error"),
        pytest.param("trap", None, 500, "unreachable", True, id="a trap"),
        pytest.param(
            "overflow",
            None,
            500,
            {"python": "stack exhausted", "c": "out of bounds memory access"},
            True,
            id="endless recursion",
        ),
        pytest.param("loop", None, 504, "longer than 2000 ms", True, id="an endless loop"),
        pytest.param("not_json", None, 502, "not JSON", False, id="a reply that is not JSON"),
        pytest.param("big", None, 502, "10000002 bytes", False, id="a reply of 10 MB"),
        pytest.param("confidential", None, 403, "confidential calls only", False, id="a call in the clear"),
        pytest.param("no-such", None, 404, "declares no method no-such", False, id="an undeclared method"),
        pytest.param("echo", "x" * 300_000, 413, "the limit is 262144", False, id="a payload that is too large"),
    ],
)
async def test_one_status_and_the_next_call_works(
    probed: EnclaveProcess, method: str, payload: object, code: int, says: str | dict[str, str], poisoned: bool
) -> None:
    outcome = await call(probed, method, payload)
    assert status(outcome) == code
    assert outcome.failure is not None
    language = "c" if probed.started.manifest.name == "probe-c" else "python"
    assert (says if isinstance(says, str) else says[language]) in outcome.failure.message
    assert (outcome.poisoned, outcome.results, outcome.state) == (poisoned, (), None)
    assert reply(await call(probed, "echo", {"still": "here"})) == {"still": "here"}


async def test_memory_is_refused_at_the_limit_and_the_application_goes_on(probed: EnclaveProcess) -> None:
    taken = reply(await call(probed, "allocate", {"mib": 500}))
    assert taken["refused"]
    assert 20 <= taken["mib"] <= 64
    assert reply(await call(probed, "allocate", {"mib": 5})) == {"mib": 5, "refused": False}


async def test_an_undeclared_output_is_an_error_string(probed: EnclaveProcess) -> None:
    outcome = await call(probed, "emit_undeclared", {"x": 1})
    assert "unknown output elsewhere" in reply(outcome)["error"]
    assert outcome.results == ()


async def test_a_short_deadline_of_the_caller_is_kept(probed: EnclaveProcess) -> None:
    outcome = await call(probed, "loop", None, deadline_ms=100)
    assert status(outcome) == 504
    assert outcome.failure is not None
    assert "100 ms" in outcome.failure.message


async def test_a_trap_loses_memory_and_nothing_else(probed: EnclaveProcess) -> None:
    before = await call(probed, "emit", {"x": 1})
    await call(probed, "put", {"key": "kept", "value": "yes"})
    await call(probed, "count")
    assert status(await call(probed, "trap")) == 500
    assert reply(await call(probed, "count")) == {"count": 1}
    assert reply(await call(probed, "get", {"key": "kept"})) == {"value": "yes"}
    after = await call(probed, "emit", {"x": 2})
    assert after.results[0].sequence == before.results[0].sequence + 1


@pytest.mark.parametrize("method", ["write_then_fail", "write_then_trap"])
async def test_a_call_that_does_not_succeed_commits_nothing(probed: EnclaveProcess, method: str) -> None:
    outcome = await call(probed, method, {"key": "k"})
    assert status(outcome) in (409, 500)
    assert (outcome.results, outcome.state) == ((), None)
    assert reply(await call(probed, "get", {"key": "k"})) == {"value": None}
    assert reply(await call(probed, "increment", {"counter": "must-not-be-kept"})) == {"value": 1}
    assert (await call(probed, "emit", 1)).results[0].sequence == 1


async def test_services_answer(probed: EnclaveProcess) -> None:
    sealed = reply(await call(probed, "seal", {"plaintext": "s", "context": "c", "policy": "product"}))["sealed"]
    opened = reply(await call(probed, "unseal", {"sealed": sealed, "context": "c"}))
    assert opened["plaintext"] == "s"
    assert opened["sealed_by"]["unique_id"] == probed.started.identity.unique_id.hex()
    elsewhere = reply(await call(probed, "unseal", {"sealed": sealed, "context": "d"}))
    assert "sealed-for-another-context" in elsewhere["error"]
    assert len(bytes.fromhex(reply(await call(probed, "random", {"count": 16}))["hex"])) == 16
    nonce = bytes(range(8))
    evidence = bytes.fromhex(reply(await call(probed, "evidence", {"nonce": nonce.hex()}))["evidence"])
    assert read_eat(decode_collection(evidence).eat).nonce == nonce
    for value in (1, 2, 3):
        assert reply(await call(probed, "increment", {"counter": "c"})) == {"value": value}
    await call(probed, "put", {"key": "k", "value": "é\n"})
    assert reply(await call(probed, "get", {"key": "k"})) == {"value": "é\n"}
    await call(probed, "delete", {"key": "k"})
    assert reply(await call(probed, "get", {"key": "k"})) == {"value": None}
    emitted = await call(probed, "emit", {"count": 3})
    assert reply(emitted) == {"sequences": [1, 2, 3]}
    assert [result.sequence for result in emitted.results] == [1, 2, 3]
    before = now()
    assert before - 10_000 < reply(await call(probed, "host_time"))["host_time"] <= now()
    assert reply(await call(probed, "log", {"message": "a line"})) is None
    assert reply(await call(probed, "emulated")) == {"emulated": True}
    assert reply(await call(probed, "protection")) == {"protection": "consistent"}
    assert reply(await call(probed, "caller")) == {"assurance": "none", "name": ""}
