"""IoT Hub's service REST API (api-version 2021-04-12), as azure-iot-hub uses it; one file per resource."""
