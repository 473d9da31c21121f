"""Modules whose inputs, outputs and twins are known, so that a wrong name of one can be told."""

from __future__ import annotations

from typing import NamedTuple

from edgeclave.deployment.image_names import split

TA_RUNNER, ENCLAVE_BROKER, SAMPLE_ANALYTICS = "ta_runner", "enclave_broker", "sample_analytics"
SIMULATED_SENSOR = "azureiotedge-simulated-temperature-sensor"


class Ends(NamedTuple):
    """The inputs and outputs of a module; None where they depend on its twin."""

    inputs: frozenset[str] | None
    outputs: frozenset[str] | None


ENDS = {
    TA_RUNNER: Ends(frozenset(), frozenset({"evidence"})),
    ENCLAVE_BROKER: Ends(frozenset(), frozenset()),
    SAMPLE_ANALYTICS: Ends(frozenset({"input1"}), None),  # one output for each output of its trusted application
    SIMULATED_SENSOR: Ends(frozenset({"control"}), frozenset({"temperatureOutput"})),
}


def kind(module_id: str, image: str = "") -> str:
    """Which known module it is, by the last part of its image's repository; by its own name where no image is given.

    >>> kind("sensor", "mcr.microsoft.com/azureiotedge-simulated-temperature-sensor:1.5") == SIMULATED_SENSOR
    True
    """
    return split(image)[0].rpartition("/")[2] if image else module_id
