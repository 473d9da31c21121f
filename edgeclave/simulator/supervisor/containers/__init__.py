"""Modules as containers on a Docker engine of this machine, as edgeAgent and aziot-edged run them."""
