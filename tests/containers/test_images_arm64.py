"""The images for arm64 on another machine: modules under user-mode emulation, the enclave on a whole emulated machine.

User-mode emulation (qemu-user) runs one program and passes its system calls on. It has no seccomp: so an enclave, which
runs no trusted application outside its filter, refuses to start there. An emulated machine has a kernel of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeclave.evidence.runtime import runtime_digest
from tests.fixtures.arm64_machine import run_machine
from tests.fixtures.break_out import ALLOWED, ATTEMPTS, COMPILER_MAY, LANDLOCK_ATTEMPTS, REFUSED
from tests.fixtures.builds import REPOSITORY, TRUSTED_APPS, build_package
from tests.fixtures.container_engine import docker
from tests.fixtures.module_images import MODULES, module_images

INSIDE = Path(__file__).parent / "inside"
EMULATED = (
    "--platform",
    "linux/arm64",
    "--read-only",
    "--cap-drop",
    "ALL",
    "--tmpfs",
    "/tmp:rw,noexec,nosuid,size=16m",
)
NEWER_LANDLOCK = {"connect by TCP", "signal the parent"}
"""Not in the version of Debian 12."""
FILTER = """
from edgeclave.enclave import lockdown, landlock
from edgeclave.errors import EnclaveError
import os, wasmtime
engine = wasmtime.Engine()
store = wasmtime.Store(engine)
module = wasmtime.Module(engine, '(module (func (export "answer") (result i32) i32.const 42))')
print(wasmtime.Instance(store, module, []).exports(store)["answer"](store), landlock.restrict())
try:
    lockdown.before_compiling(os.getppid(), 60, 1 << 30, 1 << 20)
except EnclaveError as error:
    print(error.code, error.what, sep=": ")
"""


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    return module_images("arm64v8")


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trusted application in C, which may be read by the image's user."""
    path = build_package(TRUSTED_APPS / "probe_c", tmp_path_factory.mktemp("package")).path
    path.chmod(0o644)
    return path


def test_each_module_starts_under_emulation_and_says_what_it_lacks(images: dict[str, str]) -> None:
    containers = {module: docker("run", "--detach", *EMULATED, images[module]) for module in MODULES}
    try:
        for module, container in containers.items():
            assert docker("image", "inspect", "--format", "{{.Architecture}}", images[module]) == "arm64"
            assert docker("wait", container, timeout=300) == "1"
            last = json.loads(docker("logs", container, errors=True).splitlines()[-1])
            assert (last["event"], last["code"], last["module"]) == ("module cannot run", "not-on-iot-edge", module)
    finally:
        docker("rm", "--force", "--volumes", *containers.values())


def test_an_enclave_refuses_to_run_where_emulation_has_no_filter_of_system_calls(
    images: dict[str, str], package: Path
) -> None:
    mounted = (f"--volume={INSIDE}:/inside:ro", f"--volume={package}:/app.ta:ro", "--entrypoint=python3")
    command = ("run", "--rm", *EMULATED, *mounted, images["ta_runner"])
    said = docker(*command, "-c", FILTER, timeout=300).splitlines()
    assert said == [
        "42 0",  # its compiled code would run; there is no Landlock
        "isolation-unavailable: the kernel takes no filter of system calls: Function not implemented",
    ]
    refused = json.loads(docker(*command, "/inside/one_app.py", "/app.ta", "/tmp/folder", timeout=300))
    assert (refused["machine"], refused["code"]) == ("aarch64", "isolation-unavailable")


def test_on_an_arm64_machine_the_enclave_runs_a_trusted_application_and_native_code_does_not_get_out_of_it(
    images: dict[str, str], package: Path, tmp_path: Path
) -> None:
    """One test, because the machine is dear: every attempt of tests/integration/enclave on another processor."""
    files = {f"/inside/{path.name}": path for path in INSIDE.glob("*.py")}
    files["/inside/tests/fixtures/break_out.py"] = REPOSITORY / "tests" / "fixtures" / "break_out.py"
    said = run_machine(images["ta_runner"], {**files, "/inside/app.ta": package}, tmp_path)
    app, attempts = said["app"], said["break-out"]
    assert (app["machine"], app.get("reply")) == ("aarch64", '{"from": "inside"}'), app
    assert app["runtime"] == runtime_digest().hex()
    assert "isolation by seccomp, Landlock" in app["probe"]

    as_instance = {name: "EPERM" if name in REFUSED else "killed" for name in ATTEMPTS} | {ALLOWED: "done"}
    as_compiler = as_instance | dict.fromkeys(COMPILER_MAY, "done")
    assert {name: attempts[name]["instance"] for name in ATTEMPTS} == as_instance
    assert {name: attempts[name]["compiler"] for name in ATTEMPTS} == as_compiler
    assert "killed" not in {attempts[name]["control"] for name in ATTEMPTS}, (
        "without the lockdown they reach the kernel"
    )
    alone = {name: attempts[f"landlock: {name}"]["landlock"] for name in set(LANDLOCK_ATTEMPTS) - NEWER_LANDLOCK}
    assert alone == dict.fromkeys(alone, "EACCES")
