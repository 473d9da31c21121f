"""Everything that has to be there before the first module starts: keys, the signed TA, readers, a policy.

Each step is one `edgeclave` command and is shown as it runs, so that a reader of the screen can do it by hand.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeclave.errors import EdgeclaveError
from edgeclave.evidence.runtime import runtime_digest

OUTPUTS = ("anomalies", "summary")
DEVICE = "edge01"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """Where the pieces stand. `variables` is the .env file that the deployment template is expanded with."""

    folder: Path
    template: Path
    keys: Path
    variables: Path
    simulator_state: Path
    policy: Path
    reader_state: Path

    @property
    def reader_key(self) -> Path:
        return self.keys / "reader.key.pem"

    def environment(self) -> dict[str, str]:
        """This process's environment and the variables that the template names."""
        lines = self.variables.read_text().splitlines() if self.variables.exists() else []
        pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
        return {**os.environ, **{name.strip(): value.strip() for name, _, value in pairs}}


def prepare(
    folder: Path,
    project: Path,
    progress: Progress,
    *,
    variables: Path | None = None,
    simulator_state: Path | None = None,
) -> Prepared:
    """Makes what is missing below `folder`; what is there from an earlier run is kept.

    Args:
        folder: of the demo, for example `.edgeclave/demo`.
        project: the checkout with `deployment.template.json` and the sample's trusted application.
        progress: told each command before it runs.
        variables, simulator_state: when they shall not stand below `folder`.
    """
    template = project / "deployment.template.json"
    source = project / "modules" / "sample_analytics" / "trusted_app"
    if not template.exists() or not source.is_dir():
        raise EdgeclaveError(
            "not-a-project",
            "there is no deployment.template.json with a sample_analytics module here",
            where=str(project),
            advice="run the demo from the root of an Edgeclave checkout",
        )
    prepared = Prepared(
        folder=folder,
        template=template,
        keys=folder / "keys",
        variables=variables or folder / ".env",
        simulator_state=simulator_state or folder / "simulator",
        policy=folder / "policy.toml",
        reader_state=folder / "reader",
    )
    folder.mkdir(parents=True, exist_ok=True)
    forget_another_release(prepared, progress)
    keys = ["--keys", str(prepared.keys)]
    for name in ("reader-authority", "reader"):
        if not (prepared.keys / f"{name}.key.pem").exists():
            command(["keys", "new", name, *keys], progress)

    package = folder / "anomaly.ta"
    mark = folder / "anomaly.source"
    fingerprint = _fingerprint(source)
    made = mark.read_text() if package.exists() and mark.exists() else ""
    if made != fingerprint or not prepared.environment().get("ANOMALY_PACKAGE"):
        wasm = folder / "anomaly.wasm"
        command(["ta", "build", str(source), "--out", str(wasm)], progress)
        sign = ["ta", "sign", str(source), "--wasm", str(wasm), "--key", "developer", *keys]
        command([*sign, "--out", str(package), "--env", str(prepared.variables)], progress)
        mark.write_text(fingerprint)
    for output in OUTPUTS:
        variable = f"ANOMALY_RECIPIENTS_{output.upper()}"
        if not prepared.environment().get(variable):
            sign = ["recipients", "sign", "--output", output, "--version", "1", "--recipient", "reader"]
            target = ["--env", str(prepared.variables), "--variable", variable]
            command([*sign, "--authority", "reader-authority", *keys, *target], progress)
    if not prepared.policy.exists():
        _pin_platform(prepared, progress)
    return prepared


def forget_another_release(prepared: Prepared, progress: Progress) -> None:
    """Begins anew where other code made what is there: its evidence is of another runtime, which is refused now."""
    mark, release = prepared.folder / "release", runtime_digest().hex()
    if prepared.policy.exists() and (not mark.exists() or mark.read_text() != release):
        states = (prepared.simulator_state, prepared.reader_state)
        progress(f"rm -r {' '.join(path.name for path in (*states, prepared.policy))}  # of another release")
        for state in states:
            shutil.rmtree(state, ignore_errors=True)
        prepared.policy.unlink()
    mark.write_text(release)


def _pin_platform(prepared: Prepared, progress: Progress) -> None:
    """Enrolment: the reader pins the anchor of this machine's emulator and the signer it accepts."""
    emulator = prepared.simulator_state / "data" / "ta_runner" / "emulator"
    command(["platform", "show", "--state", str(emulator)], progress)
    anchor = emulator / "attestation.pub.pem"
    signer = prepared.environment()["ANOMALY_SIGNER"]
    accept = ["--anchor", str(anchor), "--class", "emulated", "--device", DEVICE, "--signer", signer]
    command(["policy", "init", *accept, "--product-id", "1", "--out", str(prepared.policy)], progress)


def command(arguments: Sequence[str], progress: Progress) -> None:
    """Runs one `edgeclave` command to its end.

    Raises:
        EdgeclaveError: `step-failed`, with what the command said.
    """
    progress("edgeclave " + " ".join(_shortened(argument) for argument in arguments))
    done = subprocess.run([sys.executable, "-m", "edgeclave", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EdgeclaveError(
            "step-failed",
            f"`edgeclave {' '.join(arguments[:2])}` ended with {done.returncode}",
            where=(done.stderr or done.stdout).strip()[-800:],
            advice="run that command by hand to see all of its output",
        )


def _shortened(argument: str) -> str:
    path = Path(argument)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return argument if len(argument) <= 64 else f"{argument[:12]}..."


def _fingerprint(source: Path) -> str:
    """What the built package depends on: the TA's own files and the guest SDK and WIT of this release."""
    ta = Path(__file__).parent.parent / "ta"
    files = [*source.rglob("*"), *(ta / "guest").rglob("*"), *(ta / "wit").rglob("*")]
    digest = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file() and path.suffix in {".py", ".toml", ".wit"}):
        digest.update(f"{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
