"""Entry of the enclave_broker module."""

from enclave_broker.module import main

from edgeclave.edge.service import run

if __name__ == "__main__":
    run("enclave_broker", main)
