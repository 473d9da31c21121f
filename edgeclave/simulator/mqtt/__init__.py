"""MQTT 3.1.1 as edgeHub speaks it to the device SDKs."""
