"""Docker's create options as people write them, with each mistake they make."""

import json
from typing import Any

import pytest

from edgeclave.deployment.create_options import minify, read
from edgeclave.errors import ConfigurationError

EVERYTHING = {
    "Hostname": "worker",
    "Env": ["A=b"],
    "ExposedPorts": {"80/tcp": {}},
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000},
    "HostConfig": {
        "Binds": ["/data:/data:ro"],
        "CapDrop": ["ALL"],
        "Devices": [{"PathOnHost": "/dev/tee0", "PathInContainer": "/dev/tee0", "CgroupPermissions": "rwm"}],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
        "Memory": 134217728,
        "Mounts": [{"Type": "volume", "Source": "data", "Target": "/data", "VolumeOptions": {"NoCopy": True}}],
        "PidsLimit": 64,
        "PortBindings": {"8883/tcp": [{"HostPort": "8883"}]},
        "ReadonlyRootfs": True,
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
        "UTSMode": "host",
        "BlkioDeviceReadIOps": [{"Path": "/dev/sda", "Rate": 1}],
    },
    "NetworkingConfig": {"EndpointsConfig": {"azure-iot-edge": {"Aliases": ["other"], "IPAMConfig": None}}},
    "StopTimeout": 5,
}


def test_what_the_engine_knows_is_accepted_as_it_is() -> None:
    assert read({"createOptions": EVERYTHING}, "m") == EVERYTHING
    parts = minify({"createOptions": EVERYTHING}, "m")
    assert read(parts, "m") == EVERYTHING
    assert set(parts) == {"createOptions", "createOptions01"}


def test_upper_and_lower_case_make_no_difference() -> None:
    options = {
        "hostconfig": {"DNS": ["10.0.0.1"], "mounts": [{"type": "volume", "target": "/x"}]},
        "labels": {"DNS": "x"},
    }
    assert read({"createOptions": json.dumps(options)}, "m") == {
        "HostConfig": {"Dns": ["10.0.0.1"], "Mounts": [{"Type": "volume", "Target": "/x"}]},
        "Labels": {"DNS": "x"},
    }


@pytest.mark.parametrize(
    ("options", "what", "where", "advice"),
    [
        pytest.param({"HostConfg": {}}, "'HostConfg'", "m.createOptions", "'HostConfig'", id="typo at the top"),
        pytest.param({"HostConfig": {"CapDrp": []}}, "'CapDrp'", ".HostConfig", "'CapDrop'", id="typo below"),
        pytest.param(
            {"HostConfig": {"Mounts": [{"Type": "volume", "Targt": "/x"}]}},
            "'Targt'",
            ".HostConfig.Mounts[0]",
            "'Target'",
            id="typo in a mount",
        ),
        pytest.param(
            {"HostConfig": {"Mounts": [{"Type": "volum", "Target": "/x"}]}},
            "volum",
            ".HostConfig.Mounts[0].Type",
            "use one of bind, volume",
            id="unknown kind of mount",
        ),
        pytest.param({"HostConfig": {"Mounts": [{"Type": "bind"}]}}, "Target", ".Mounts[0]", "", id="no target"),
        pytest.param({"HostConfig": {"Memory": "128m"}}, "int", ".HostConfig.Memory", "", id="a text for a number"),
        pytest.param({"HostConfig": {"CapDrop": "ALL"}}, "array", ".HostConfig.CapDrop", "", id="a text for a list"),
        pytest.param({"Env": {"A": "b"}}, "array", ".Env", "", id="an object for a list"),
        pytest.param(
            {"NetworkingConfig": {"EndpointsConfig": {"x": {"Alias": []}}}},
            "'Alias'",
            ".NetworkingConfig.EndpointsConfig[...]",
            "'Aliases'",
            id="typo in an endpoint",
        ),
        pytest.param({"HostConfig": {"zzz": 1}}, "'zzz'", ".HostConfig", "remove it", id="like nothing known"),
    ],
)
def test_mistakes_are_named_with_their_place(options: Any, what: str, where: str, advice: str) -> None:
    for written in (options, json.dumps(options)):
        with pytest.raises(ConfigurationError) as refused:
            read({"createOptions": written}, "m")
        assert refused.value.code == "bad-create-options"
        assert what in refused.value.what
        assert where in refused.value.where
        assert advice in refused.value.advice
