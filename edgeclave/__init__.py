"""Trusted applications on Azure IoT Edge: package, run, attest, seal, verify."""

__version__ = "0.1.0"
