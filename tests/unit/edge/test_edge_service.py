from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from pathlib import Path

# Of this very process, because the metrics port is fixed and other workers run tests of this file, too.
_BLOCK = f"127.{64 + (os.getpid() >> 8) % 64}.{os.getpid() % 256}"
ADDRESS, OTHER_ADDRESS = f"{_BLOCK}.13", f"{_BLOCK}.14"


def start(tmp_path: Path, body: str, address: str = ADDRESS) -> subprocess.Popen[str]:
    script = "\n".join(
        [
            "import asyncio, logging, time",
            "from edgeclave.edge.service import run",
            "from edgeclave.errors import ConfigurationError",
            "async def main(service):",
            textwrap.indent(textwrap.dedent(body), "    "),
            "run('example', main)",
        ]
    )
    environment = {**os.environ, "EDGECLAVE_STATE": str(tmp_path), "EDGECLAVE_LISTEN": address}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, text=True)


def get(path: str, address: str = ADDRESS) -> tuple[int, bytes]:
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"http://{address}:9600{path}", timeout=30) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the module does not listen")


def test_metrics_health_and_clean_stop(tmp_path: Path) -> None:
    process = start(
        tmp_path,
        """
        service.checks["well"] = lambda: None
        await service.stopping.wait()
        """,
    )
    assert get("/health") == (200, b'{"status": "healthy", "checks": {"well": "ok"}}')
    status, body = get("/metrics")
    assert (status, b"process_resident_memory_bytes" in body) == (200, True)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    events = [json.loads(line) for line in errors.splitlines()]
    assert [event["event"] for event in events] == ["module started", "module stopped"]
    assert all(event["module"] == "example" for event in events)


def test_unhealthy_says_what(tmp_path: Path) -> None:
    process = start(
        tmp_path,
        """
        service.checks["hub"] = lambda: "not connected"
        await service.stopping.wait()
        """,
    )
    assert get("/health") == (503, b'{"status": "unhealthy", "checks": {"hub": "not connected"}}')
    process.terminate()
    process.communicate(timeout=10)


def healthy(address: str = ADDRESS) -> tuple[int, str]:
    """What an image's health check says."""
    command = [sys.executable, "-m", "edgeclave.edge.health"]
    done = subprocess.run(
        command,
        check=False,
        env={**os.environ, "EDGECLAVE_LISTEN": address},
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_health_check_of_an_image(tmp_path: Path) -> None:
    assert healthy() == (1, f"no answer from {ADDRESS}:9600: [Errno 111] Connection refused\n")
    process = start(
        tmp_path,
        """
        service.checks["file"] = lambda: "gone" if (service.state / "gone").exists() else None
        await service.stopping.wait()
        """,
    )
    get("/health")
    assert healthy() == (0, '{"status": "healthy", "checks": {"file": "ok"}}\n')
    (tmp_path / "gone").touch()
    assert healthy() == (1, '{"status": "unhealthy", "checks": {"file": "gone"}}\n')
    process.terminate()
    process.communicate(timeout=10)


def test_gone_within_five_seconds_whatever_hangs(tmp_path: Path) -> None:
    ignores = start(tmp_path, "while True: await asyncio.sleep(1)")
    get("/health")
    blocks = start(tmp_path, "await asyncio.sleep(0.3); time.sleep(60)", address=OTHER_ADDRESS)
    get("/health", address=OTHER_ADDRESS)
    time.sleep(0.5)
    began = time.monotonic()
    ignores.terminate()
    blocks.terminate()
    for process in (ignores, blocks):
        process.communicate(timeout=10)
    assert time.monotonic() - began < 8  # and what a busy machine adds


def test_refusal_is_one_line_with_advice(tmp_path: Path) -> None:
    process = start(tmp_path, "raise ConfigurationError('no-such-thing', 'it is not there', advice='put it there')")
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    last = json.loads(errors.splitlines()[-1])
    assert (last["code"], last["what"], last["advice"]) == ("no-such-thing", "it is not there", "put it there")
    assert "Traceback" not in errors


def test_libraries_log_as_json_too(tmp_path: Path) -> None:
    process = start(
        tmp_path,
        """
        logging.getLogger("azure.iot.device").warning("a traceback of the SDK")
        logging.getLogger("some.library").warning("hello %s", "there")
        """,
    )
    _, errors = process.communicate(timeout=10)
    events = [json.loads(line)["event"] for line in errors.splitlines()]
    assert events == ["module started", "hello there", "module stopped"]


def test_second_process_of_a_module_is_refused(tmp_path: Path) -> None:
    first = start(tmp_path, "await service.stopping.wait()")
    get("/health")
    second = start(tmp_path, "pass")
    _, errors = second.communicate(timeout=10)
    assert json.loads(errors.splitlines()[-1])["code"] == "port-in-use"
    first.terminate()
    first.communicate(timeout=10)
