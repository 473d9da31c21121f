"""What an engine says (real messages of Docker 20.10 to 27) becomes something that a person can act on."""

from __future__ import annotations

import pytest

from edgeclave.simulator.supervisor.containers.engine import engine_error


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        pytest.param(
            "write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "docker system df", id="a full disk"
        ),
        pytest.param(
            "could not find an available, non-overlapping IPv4 address pool among the defaults",
            "docker network prune",
            id="no addresses left",
        ),
        pytest.param(
            "all predefined address pools have been fully subnetted", "docker network prune", id="no addresses, 27"
        ),
        pytest.param(
            'Conflict. The container name "/m" is already in use by container "ab". You have to remove (or rename)',
            "remove that container",
            id="a name in use",
        ),
        pytest.param(
            "driver failed programming external connectivity on endpoint m: Bind for 0.0.0.0:8883 failed: port is"
            " already allocated",
            "PortBindings",
            id="a port of another container",
        ),
        pytest.param("listen tcp4 0.0.0.0:8883: bind: address already in use", "PortBindings", id="a port in use"),
        pytest.param(
            'invalid mount config for type "bind": bind source path does not exist: /data', "mount", id="no such path"
        ),
        pytest.param(
            'error gathering device information while adding custom device "/dev/sgx": no such file or directory',
            "Devices",
            id="no such device",
        ),
        pytest.param("Minimum memory limit allowed is 6MB", "more Memory", id="too little memory"),
        pytest.param("invalid reference format", "image's name", id="an image name that is none"),
        pytest.param("the moon is in the wrong phase", "", id="nothing known"),
    ],
)
def test_advice(said: str, advice: str) -> None:
    error = engine_error("start container m", said)
    assert error.what.startswith(f"the engine cannot start container m: {said[:20]}")
    assert advice in error.advice
    assert bool(advice) == bool(error.advice)
