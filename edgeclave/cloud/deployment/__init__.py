"""`edgeclave deploy`: what IoT Hub has, what would change, applying it, and watching until the devices say it runs.

- `content.py`: what a template deploys.
- `hub.py`: IoT Hub by the unmodified azure-iot-hub client; every failure as something a person can act on.
- `difference.py`: two contents compared, module by module.
- `device_plan.py`, `configuration_plan.py`: the two kinds of deployment, each read, compared, applied, looked at.
- `states.py`: what a device's twins say about a deployment.
- `watch.py`: looks until it is settled or the time is up.
"""
