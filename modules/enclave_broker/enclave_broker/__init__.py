"""enclave_broker: the only way to a trusted application on this device.

A request's way through the files: `server` and `callers` (HTTPS), or `direct_methods` (IoT Hub) -> `operations` ->
`gate` (`quotas`, `policy`, `audit`) -> `runner_link` (ta_runner) -> `responses`. `module` puts them together,
`settings` reads the twin.
"""
