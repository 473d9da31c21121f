"""A local Azure IoT Hub with one IoT Edge device, for unmodified Azure SDKs.

A development tool: it is checked against the SDKs, not against Azure.

- `async with Simulator.running(directory) as sim:` on the event loop; its clients are other processes.
- `with SimulatorThread(directory) as sim:` on a thread of its own; its clients may live in this process.
"""

from edgeclave.simulator.simulator import Simulator
from edgeclave.simulator.thread import SimulatorThread

__all__ = ["Simulator", "SimulatorThread"]
