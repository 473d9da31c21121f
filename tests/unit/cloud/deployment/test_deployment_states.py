from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgeclave.cloud.deployment.hub import Twin, Twins
from edgeclave.cloud.deployment.states import Level, State, device_states

OK, WAITING, FAILED = Level.OK, Level.WAITING, Level.FAILED
ACKNOWLEDGED = {"lastDesiredVersion": 5, "lastDesiredStatus": {"code": 200, "description": ""}}


def twins(
    *,
    wanted: dict[str, Any] | None = None,
    reported: dict[str, Any] | None = None,
    agent: dict[str, Any] | None = None,
    desired_twin: dict[str, Any] | None = None,
    reported_twin: dict[str, Any] | None = None,
    clients: Any = None,
) -> Twins:
    """A device with one module `m`; `wanted` and `reported` are its entries, `agent` what edgeAgent says of itself."""
    entry = {"status": "running", "restartPolicy": "always", "settings": {"image": "m:2"}, **(wanted or {})}
    said = (
        {**ACKNOWLEDGED, **({"modules": {"m": reported}} if reported is not None else {})} if agent is None else agent
    )
    return Twins(
        Twin("edge01", "", edge_device=True),
        Twin("edge01", "$edgeAgent", {"$version": 5, "modules": {"m": entry}}, said, connection_state="Disconnected"),
        {
            "$edgeHub": Twin("edge01", "$edgeHub", {}, {"clients": clients}),
            "m": Twin("edge01", "m", desired_twin or {}, reported_twin or {}),
        },
    )


def states(of: Twins, *, answers: bool = True) -> list[State]:
    return device_states(of, lambda: answers)


def running(**more: Any) -> dict[str, Any]:
    return {"runtimeStatus": "running", "settings": {"image": "m:2"}, **more}


@pytest.mark.parametrize(
    ("agent", "level", "words"),
    [
        pytest.param({}, WAITING, "has never reported; the hub shows it as disconnected", id="nothing reported"),
        pytest.param(
            {
                "lastDesiredVersion": 4,
                "lastDesiredStatus": {"code": 200},
                "$metadata": {"$lastUpdated": "2026-05-01T10:00:00Z"},
            },
            WAITING,
            "has version 4 of the deployment, the hub 5, last reported at 2026-05-01T10:00:00Z",
            id="an older version",
        ),
        pytest.param(
            {"lastDesiredVersion": 5, "lastDesiredStatus": {"code": 400, "description": "no JSON"}},
            FAILED,
            "cannot read the deployment: no JSON",
            id="refused",
        ),
        pytest.param(
            {"lastDesiredVersion": 5, "lastDesiredStatus": {"code": 412}}, FAILED, "schema version", id="wrong schema"
        ),
        pytest.param(
            {"lastDesiredVersion": 5, "lastDesiredStatus": {"code": 417}}, FAILED, "has no deployment", id="empty"
        ),
        pytest.param(
            {"lastDesiredVersion": 5, "lastDesiredStatus": {"code": 406}}, WAITING, "not connected", id="shut down"
        ),
        pytest.param(
            {"lastDesiredVersion": 5, "lastDesiredStatus": {"code": 500, "description": "Could not pull image m:2"}},
            WAITING,
            "cannot pull an image: Could not pull image m:2",
            id="image pull",
        ),
        pytest.param(
            {"lastDesiredVersion": 5, "lastDesiredStatus": {"code": 500, "description": "task was canceled"}},
            WAITING,
            "code 500): task was canceled",
            id="something else",
        ),
        pytest.param({"lastDesiredVersion": 5}, WAITING, "code None", id="no status"),
        pytest.param(ACKNOWLEDGED, OK, "has version 5 of the deployment", id="acknowledged"),
    ],
)
def test_edge_agent(agent: dict[str, Any], level: Level, words: str) -> None:
    state = states(twins(agent=agent))[0]
    assert (state.part, state.level) == ("edgeAgent", level)
    assert words in state.what
    assert level is OK or state.advice


def test_modules_of_an_older_version_prove_nothing() -> None:
    older = {"lastDesiredVersion": 4, "modules": {"m": running()}}
    assert [state.part for state in states(twins(agent=older))] == ["edgeAgent"]


def test_an_edge_agent_that_was_not_replaced_yet_is_not_done() -> None:
    system = {"edgeAgent": {"settings": {"image": "agent:1.5.1"}}}
    found = twins(agent={**ACKNOWLEDGED, "systemModules": system})
    found = replace(found, agent=replace(found.agent, desired={"$version": 5, "systemModules": system}))
    assert [state.level for state in states(found)] == [OK]
    older = {**ACKNOWLEDGED, "systemModules": {"edgeAgent": {"settings": {"image": "agent:1.4"}}}}
    (state,) = states(replace(found, agent=replace(found.agent, reported=older)))
    assert (state.level, state.what) == (WAITING, "still has the image agent:1.4")


def test_a_device_that_does_not_answer_is_not_done_by_what_it_said_last() -> None:
    agent, module = states(twins(reported=running()), answers=False)
    assert (agent.level, module.level) == (WAITING, OK)
    assert agent.what.startswith("does not answer now; the hub shows it as disconnected: all that the device reported")
    assert "iotedge system status" in agent.advice


def test_only_a_device_that_is_well_is_asked_for_an_answer() -> None:
    def asked() -> bool:
        raise AssertionError("asked")

    assert device_states(twins(reported=running(runtimeStatus="backoff")), asked)[-1].level is WAITING


@pytest.mark.parametrize(
    ("wanted", "reported", "level", "words"),
    [
        pytest.param({}, running(), OK, "running", id="runs"),
        pytest.param({}, running(restartCount=3), OK, "running, restarted 3 times", id="runs again"),
        pytest.param({}, None, WAITING, "not created yet", id="not there"),
        pytest.param(
            {}, running(settings={"image": "m:1"}), WAITING, "still has the image m:1", id="runs with the old image"
        ),
        pytest.param({}, {"runtimeStatus": "running"}, OK, "running", id="image not told"),
        pytest.param(
            {},
            running(runtimeStatus="backoff", exitCode=137, statusDescription="Killed", restartCount=2),
            WAITING,
            "ends again and again, restarted 2 times: exit code 137: Killed",
            id="backoff",
        ),
        pytest.param(
            {}, running(runtimeStatus="failed", exitCode=1), WAITING, "failed: exit code 1", id="failed, tried again"
        ),
        pytest.param(
            {"restartPolicy": "never"},
            running(runtimeStatus="failed", exitCode=1),
            FAILED,
            "failed: exit code 1",
            id="failed for good",
        ),
        pytest.param(
            {"restartPolicy": "never"},
            running(runtimeStatus="stopped", exitCode=0),
            FAILED,
            "has ended: exit code 0",
            id="ended for good",
        ),
        pytest.param({}, running(runtimeStatus="stopped"), WAITING, "has ended", id="ended, started again"),
        pytest.param({}, running(runtimeStatus="unhealthy"), WAITING, "unhealthy", id="its health check fails"),
        pytest.param({}, running(runtimeStatus="unknown"), WAITING, "unknown", id="unknown"),
        pytest.param({"status": "stopped"}, running(runtimeStatus="stopped"), OK, "stopped", id="wanted stopped"),
        pytest.param({"status": "stopped"}, None, OK, "stopped", id="wanted stopped, not there"),
        pytest.param({"status": "stopped"}, running(), WAITING, "still runs", id="wanted stopped, runs"),
    ],
)
def test_modules(wanted: dict[str, Any], reported: dict[str, Any] | None, level: Level, words: str) -> None:
    agent, module = states(twins(wanted=wanted, reported=reported))
    assert (agent.level, module.part, module.level) == (OK, "m", level)
    assert words in module.what


DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
REASON = {"code": "wrong-signer", "what": "the package is signed by another", "advice": "deploy the right one"}


@pytest.mark.parametrize(
    ("reported", "level", "words"),
    [
        pytest.param({"state": "running", "digest": DIGEST, "version": "1.0"}, OK, "running, version 1.0", id="runs"),
        pytest.param(None, WAITING, "is not reported yet", id="not reported"),
        pytest.param({"state": "starting"}, WAITING, "starting", id="starts"),
        pytest.param(
            {"state": "running", "digest": OTHER, "version": "0.9"}, WAITING, "former version 0.9", id="the old one"
        ),
        pytest.param(
            {"state": "running", "digest": OTHER, "version": "0.9", "reason": REASON},
            FAILED,
            "the former version 0.9 goes on; the package is signed by another [wrong-signer]",
            id="upgrade refused",
        ),
        pytest.param({"state": "failed", "reason": REASON}, FAILED, "[wrong-signer]", id="refused"),
        pytest.param(
            {"state": "backoff", "reason": {"code": "package-unavailable", "what": "404"}},
            WAITING,
            "404 [package-unavailable]",
            id="package not there yet",
        ),
        pytest.param(
            {"state": "running", "digest": OTHER, "version": "0.9", "reason": {"code": "registry-busy", "what": "429"}},
            WAITING,
            "the former version 0.9 goes on; 429 [registry-busy]",
            id="upgrade not fetched yet",
        ),
        pytest.param(
            {"state": "failed", "reason": {"code": "registry-bad-answer", "what": "a web page"}},
            FAILED,
            "a web page",
            id="no registry there",
        ),
        pytest.param({"state": "running", "digest": DIGEST, "reason": REASON}, FAILED, "wrong", id="a setting refused"),
        pytest.param("running", WAITING, "not reported", id="not an object"),
    ],
)
def test_trusted_apps(reported: Any, level: Level, words: str) -> None:
    state = states(
        twins(
            reported=running(),
            desired_twin={"trustedApps": {"anomaly": {"digest": DIGEST}}},
            reported_twin={"trustedApps": {"anomaly": reported}},
        )
    )[-1]
    assert (state.part, state.level) == ("m/anomaly", level)
    assert words in state.what


@pytest.mark.parametrize(
    ("desired", "reported", "level"),
    [
        pytest.param({"policy": {}}, {}, WAITING, id="a policy that is not reported"),
        pytest.param({"policy": {}}, {"policy": {"statements": 2, "problem": None}}, None, id="a policy in force"),
        pytest.param({"policy": {}}, {"policy": {"problem": REASON}}, FAILED, id="a policy that is refused"),
        pytest.param({}, {"reason": {"code": "malformed-twin", "what": "x"}}, FAILED, id="a twin that is refused"),
        pytest.param({}, {"reason": REASON}, WAITING, id="something else that is wrong"),
        pytest.param({"trustedApps": []}, {"trustedApps": []}, None, id="lists where objects belong"),
        pytest.param({}, {}, None, id="a module of somebody else"),
    ],
)
def test_what_modules_say_of_their_twin(desired: dict[str, Any], reported: dict[str, Any], level: Level | None) -> None:
    found = states(twins(reported=running(), desired_twin=desired, reported_twin=reported))
    assert [state.level for state in found if state.part == "m twin"] == ([] if level is None else [level])


CONNECTED, DISCONNECTED = {"status": "Connected"}, {"status": "Disconnected"}


@pytest.mark.parametrize(
    ("clients", "level"),
    [
        pytest.param({"edge01/m": DISCONNECTED}, WAITING, id="disconnected"),
        pytest.param({"edge01/m": CONNECTED, "edge01/n": DISCONNECTED}, OK, id="connected"),
        pytest.param({}, OK, id="not listed"),
        pytest.param(None, OK, id="no list"),
    ],
)
def test_what_a_module_reported_counts_while_it_is_connected(clients: Any, level: Level) -> None:
    app = {"state": "running", "digest": DIGEST, "version": "1.0"}
    found = twins(
        reported=running(),
        desired_twin={"$version": 3, "trustedApps": {"anomaly": {"digest": DIGEST}}},
        reported_twin={"trustedApps": {"anomaly": app}},
        clients=clients,
    )
    last = states(found)[-1]
    assert last.level is level
    assert level is OK or (last.part, "not connected to edgeHub" in last.what) == ("m twin", True)


def test_clients_are_found_by_the_names_that_edge_hub_gives_them() -> None:
    found = twins(reported=running(), desired_twin={"rate": 1}, clients={"press%2E1/m": DISCONNECTED})
    assert states(found)[-1].level is OK
    assert states(replace(found, device=replace(found.device, device_id="press.1")))[-1].level is WAITING


def test_a_module_without_desired_properties_may_come_and_go() -> None:
    found = twins(reported=running(), desired_twin={"$version": 1}, clients={"edge01/m": DISCONNECTED})
    assert [state.level for state in states(found)] == [OK, OK]


def test_a_module_that_is_not_in_the_hub_yet_is_not_done() -> None:
    found = twins(reported=running())
    found = replace(found, modules={})
    assert (states(found)[-1].part, states(found)[-1].level) == ("m twin", WAITING)


def test_trusted_apps_of_a_module_that_is_stopped_are_not_waited_for() -> None:
    desired = {"trustedApps": {"anomaly": {"digest": DIGEST}}}
    found = states(twins(wanted={"status": "stopped"}, reported=running(runtimeStatus="stopped"), desired_twin=desired))
    assert [state.part for state in found] == ["edgeAgent", "m"]
