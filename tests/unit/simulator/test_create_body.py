"""What createOptions become: all that a device's edgeAgent adds, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from edgeclave.simulator.supervisor.containers.container import in_container
from edgeclave.simulator.supervisor.containers.create_body import Surroundings, bound_volumes, create_body

SURROUNDINGS = Surroundings("sim-1", ("gateway", "172.18.0.1"), {"edgeclave.simulator": "sim-1"})
SOCKET = "/run/edgeclave/m.sock:/var/run/iotedge/workload.sock"


def made(options: dict[str, Any], files: tuple[str, ...] = (), **environment: str) -> dict[str, Any]:
    return create_body(
        options,
        SURROUNDINGS,
        module_id="m",
        image="image:1",
        environment={"IOTEDGE_MODULEID": "m", **environment},
        workload_socket="/run/edgeclave/m.sock",
        files=files,
    )


def test_without_options_a_module_gets_its_socket_its_environment_and_the_network() -> None:
    assert made({}) == {
        "Image": "image:1",
        "Env": ["IOTEDGE_MODULEID=m"],
        "Labels": {"edgeclave.simulator": "sim-1"},
        "HostConfig": {"Binds": [SOCKET], "ExtraHosts": ["gateway:172.18.0.1"], "NetworkMode": "sim-1"},
        "NetworkingConfig": {"EndpointsConfig": {"sim-1": {"Aliases": ["m"]}}},
    }


def test_what_the_options_say_is_kept_and_not_changed() -> None:
    options = {
        "User": "1:1",
        "StopTimeout": 3,
        "Labels": {"mine": "x"},
        "HostConfig": {
            "CapDrop": ["ALL"],
            "Memory": 1,
            "Binds": ["/data:/data:ro"],
            "ExtraHosts": ["other:1.2.3.4"],
            "LogConfig": {"Type": "local", "Config": {"max-size": "1m"}},
            "Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b"}, {"Type": "tmpfs", "Target": "/c"}],
        },
    }
    body = made(options)
    host = body["HostConfig"]
    assert (body["User"], body["StopTimeout"], body["Labels"]["mine"]) == ("1:1", 3, "x")
    assert host["Binds"] == ["/data:/data:ro", SOCKET]
    assert host["ExtraHosts"] == ["other:1.2.3.4", "gateway:172.18.0.1"]
    for name in ("CapDrop", "Memory", "LogConfig", "Mounts"):
        assert host[name] == options["HostConfig"][name]  # type: ignore[index]
    assert options["HostConfig"]["Binds"] == ["/data:/data:ro"]  # type: ignore[index]


def test_the_deployments_environment_wins_over_that_of_the_options() -> None:
    body = made({"Env": ["A=options", "B=options", "IOTEDGE_MODULEID=other", "EMPTY"]}, A="deployment")
    assert body["Env"] == ["B=options", "EMPTY", "IOTEDGE_MODULEID=m", "A=deployment"]


def test_volumes_get_the_simulators_prefix_and_label() -> None:
    body = made(
        {
            "HostConfig": {
                "Binds": ["state:/state", "other:/other:ro", "/host:/host"],
                "Mounts": [
                    {"Type": "volume", "Source": "named", "Target": "/n", "VolumeOptions": {"Labels": {"a": "b"}}},
                    {"Type": "volume", "Target": "/anonymous"},
                ],
            }
        }
    )
    assert body["HostConfig"]["Binds"] == ["sim-1-state:/state", "sim-1-other:/other:ro", "/host:/host", SOCKET]
    assert bound_volumes(body) == ["sim-1-state", "sim-1-other"]
    named, anonymous = body["HostConfig"]["Mounts"]
    assert named["Source"] == "sim-1-named"
    assert named["VolumeOptions"]["Labels"] == {"a": "b", "edgeclave.simulator": "sim-1"}
    assert "Source" not in anonymous


def test_local_files_are_read_only_at_the_same_path() -> None:
    assert made({}, ("/home/me/a.ta",))["HostConfig"]["Binds"] == [SOCKET, "/home/me/a.ta:/home/me/a.ta:ro"]


@pytest.mark.parametrize(
    ("options", "endpoints", "mode"),
    [
        pytest.param(
            {"NetworkingConfig": {"EndpointsConfig": {"azure-iot-edge": {"Aliases": ["x"]}}}},
            {"sim-1": {"Aliases": ["x", "m"]}},
            "sim-1",
            id="the device's network by its name",
        ),
        pytest.param(
            {"NetworkingConfig": {"EndpointsConfig": {"azure-iot-edge": None, "lan": {}}}},
            {"sim-1": {"Aliases": ["m"]}, "lan": {}},
            "sim-1",
            id="one more network",
        ),
        pytest.param(
            {"NetworkingConfig": {"EndpointsConfig": {"host": {}}}, "HostConfig": {"NetworkMode": "host"}},
            {"host": {}},
            "host",
            id="the host's network, as Azure's documents have it",
        ),
        pytest.param(
            {"NetworkingConfig": {"EndpointsConfig": {"lan": {}}}}, {"lan": {}}, None, id="another network only"
        ),
        pytest.param(
            {"HostConfig": {"NetworkMode": "azure-iot-edge"}}, {"sim-1": {"Aliases": ["m"]}}, "sim-1", id="by its mode"
        ),
    ],
)
def test_networks(options: dict[str, Any], endpoints: dict[str, Any], mode: str | None) -> None:
    body = made(options)
    assert body["NetworkingConfig"]["EndpointsConfig"] == endpoints
    assert body["HostConfig"].get("NetworkMode") == mode


def test_upper_and_lower_case_make_no_difference() -> None:
    body = made({"hostconfig": {"BINDS": ["/a:/a"], "dns": ["1.1.1.1"]}, "ENV": ["A=b"], "labels": {"env": "kept"}})
    assert body["HostConfig"]["Binds"] == ["/a:/a", SOCKET]
    assert body["HostConfig"]["dns"] == ["1.1.1.1"]
    assert body["Env"] == ["A=b", "IOTEDGE_MODULEID=m"]
    assert body["Labels"]["env"] == "kept"
    assert not {"hostconfig", "ENV", "labels"} & body.keys()


ID, OTHER = "a1" * 32, "b2" * 32
VERSION_1 = f"9:name=systemd:/docker/{ID}\n8:pids:/docker/{ID}\n0::/\n"


@pytest.mark.parametrize(
    ("groups", "mine"),
    [
        pytest.param(VERSION_1, True, id="version 1, cgroupfs"),
        pytest.param(f"0::/system.slice/docker-{ID}.scope\n", True, id="version 2, systemd"),
        pytest.param(f"0::/docker/{ID}\n", True, id="version 2, cgroupfs"),
        pytest.param(f"0::/docker/{ID}/init.scope\n", True, id="version 2, a group of its own inside"),
        pytest.param(f"0::/../docker-{ID}.scope\n", True, id="version 2, seen from another namespace"),
        pytest.param(f"0::/my.slice/{ID}\n", True, id="version 2, with a CgroupParent"),
        pytest.param(VERSION_1.replace(ID, OTHER), False, id="another container"),
        pytest.param("0::/user.slice/user-1000.slice/session-1.scope\n", False, id="no container"),
        pytest.param(f"0::/user.slice/not-{ID}-at-all\n", False, id="a group that only sounds like it"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_processes_are_known_by_their_control_groups(groups: str, mine: bool) -> None:
    assert in_container(groups, ID) is mine
