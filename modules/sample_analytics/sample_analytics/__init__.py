"""A real workload: takes telemetry, has a trusted application analyse it, sends what that sealed upstream.

sources/ --> pipeline --> (enclave_broker, trusted application)
   ^            |
store: cursor, batch, inbox, outbox  --> module outputs
"""
