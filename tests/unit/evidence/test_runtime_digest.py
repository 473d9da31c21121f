"""The runtime reference value covers what runs in the enclave, and nothing else."""

import subprocess
import sys
from pathlib import Path

import edgeclave
from edgeclave.evidence.runtime import runtime_digest, runtime_files

ROOT = Path(edgeclave.__file__).parent


def test_it_covers_the_enclave_and_what_it_imports():
    files = runtime_files()
    assert {"cose.py", "errors.py", "wire.py", "evidence/eat.py", "results/sealed.py", "ta/identity.py"} <= set(files)
    assert files == sorted(files)


def test_it_leaves_the_host_and_the_guest_out():
    assert not [path for path in runtime_files() if path.startswith(("ta/guest", "cli/", "edge/", "simulator/"))]


def test_every_module_of_ours_that_the_enclave_side_imports_is_covered():
    """Imports them in a fresh interpreter and asks which files came along."""
    modules = ["evidence.eat", "evidence.collection", "evidence.emulator", "evidence.runtime"]
    modules += ["results.recipients", "results.sealed", "results.records", "results.beacon"]
    modules += ["enclave"] if (ROOT / "enclave").exists() else []
    script = "import importlib, sys\n"
    script += "".join(f"importlib.import_module('edgeclave.{name}')\n" for name in modules)
    script += "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'edgeclave' and m.__file__))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    imported = {Path(path).relative_to(ROOT).as_posix() for path in loaded}
    assert imported <= set(runtime_files())
    assert not {
        path for path in imported if path in ("evidence/policy.py", "evidence/verifier.py", "results/stream.py")
    }


def test_it_is_a_digest_and_stable():
    assert len(runtime_digest()) == 32
    assert runtime_digest() == runtime_digest()
