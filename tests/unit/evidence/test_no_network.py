"""Verification never touches the network: it is made in a process that the kernel kills at the first socket."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fixtures.real_vectors import FOLDER, real_vector

SCRIPT = """
import ctypes, os, socket, sys
from edgeclave.cli import appraising, policy, verify
from edgeclave.cli.main import run
from edgeclave.enclave import seccomp

numbers = {"x86_64": (41, 42), "aarch64": (198, 203)}[os.uname().machine]  # socket, connect
rules = seccomp.Rules([number for number in range(500) if number not in numbers], {}, {})
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
seccomp.install(seccomp.program(rules, os.uname().machine), os.uname().machine)
if sys.argv[1] == "a socket":
    socket.socket()
sys.exit(run(sys.argv[1:]))
"""


def without_sockets(*arguments):
    return subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_the_kernel_does_kill():
    assert without_sockets("a socket").returncode == -31  # SIGSYS


@pytest.mark.parametrize(
    ("name", "endorsements", "at", "code"),
    [
        pytest.param("intel/sgx_quote", "intel/sgx_quote_collateral.json", "1752919000", 0, id="SGX"),
        pytest.param("intel/tdx_quote", "intel/tdx_quote_collateral.json", "1752919000", 0, id="TDX"),
        pytest.param("amd/trustee/test-report.bin", "amd/trustee", "2025-06-01", 0, id="SEV-SNP"),
        pytest.param("azure-cvm/evidence-v1.json", "amd/trustee", "2025-06-01", 0, id="Azure"),
        pytest.param("intel/sgx_quote", "amd/trustee", "1752919000", 1, id="SGX whose collateral is missing"),
        pytest.param("intel/sgx_quote", "intel/sgx_quote_collateral.json", "2030-01-01", 1, id="SGX, expired"),
        pytest.param("amd/trustee/test-report.bin", "intel", "2025-06-01", 1, id="SEV-SNP without its VCEK"),
    ],
)
def test_a_verdict_without_a_socket(name, endorsements, at, code):
    real_vector(name)
    done = without_sockets("verify", str(FOLDER / name), "--endorsements", str(FOLDER / endorsements), "--at", at)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("accepted" in done.stdout) == (code == 0)
