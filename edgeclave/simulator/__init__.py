"""A local Azure IoT Hub with one IoT Edge device, for unmodified Azure SDKs.

A development tool: it is checked against the SDKs, not against Azure.

>>> from edgeclave.simulator import Simulator   # async with Simulator.running(state_directory) as sim: ...
"""

from edgeclave.simulator.simulator import Simulator

__all__ = ["Simulator"]
