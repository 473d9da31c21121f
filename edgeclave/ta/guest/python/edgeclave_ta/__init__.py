"""Write a trusted application in Python. It is called like an IoT Hub direct method: a name, JSON in, JSON out.

    from dataclasses import dataclass
    from typing import Annotated
    from edgeclave_ta import Failure, Range, TrustedApp, tee

    app = TrustedApp()

    @dataclass
    class Reading:
        celsius: Annotated[float, Range(-60, 200)]
        sensor: str = "main"

    @app.method
    def observe(reading: Reading) -> dict[str, bool]:
        if tee.get(reading.sensor) == "broken":
            raise Failure(409, f"sensor {reading.sensor} is broken")
        tee.emit("summary", reading)
        return {"accepted": True}

A payload that is no `Reading` never reaches the function: its caller gets status 400 and the path of what is wrong.

Import everything at the top of a module: inside the TEE there are no files, so nothing can be imported later.
In a unit test the same code runs as plain Python; see `edgeclave_ta.testing`.
"""

from . import tee
from ._app import Failure, TrustedApp
from ._bounds import Length, Range
from ._json import to_json
from ._typed import from_json

__all__ = ["Failure", "Length", "Range", "TrustedApp", "from_json", "tee", "to_json"]
