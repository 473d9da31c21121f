"""Write a trusted application in Python. It is called like an IoT Hub direct method: a name, JSON in, JSON out.

    from edgeclave_ta import Failure, TrustedApp, tee

    app = TrustedApp()

    @app.method
    def observe(payload):
        if "temperature" not in payload:
            raise Failure(400, "temperature is missing")
        tee.emit("summary", {"temperature": payload["temperature"]})
        return {"accepted": True}

Import everything at the top of a module: inside the TEE there are no files, so nothing can be imported later.
In a unit test the same code runs as plain Python; see `edgeclave_ta.testing`.
"""

from . import tee
from ._app import Failure, TrustedApp

__all__ = ["Failure", "TrustedApp", "tee"]
