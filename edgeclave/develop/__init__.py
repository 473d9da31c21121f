"""The developer's side of trusted applications: project templates, builds, the emulator as a test bench, signers.

Not in `edgeclave.ta`, whose every file is measured as part of the enclave.
"""
