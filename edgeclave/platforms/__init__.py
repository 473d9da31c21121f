"""Outside the trust boundary: how an enclave is started and asked on each TEE, one file per TEE.

`base` is what a platform offers, `enclave_process` speaks with an enclave that is a process of its own, `emulator` is
the platform every machine has. To add a TEE, add one file here and one in `edgeclave.evidence`.
"""
