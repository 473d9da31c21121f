"""The C guest SDK on another backend, under the address and undefined-behaviour sanitizers.

In WebAssembly a read past the payload would go unseen. And the SDK must not depend on WebAssembly: all but one file of
it is built here as strict C for this machine.
"""

from __future__ import annotations

import json
import math
import random
import struct
import subprocess
from pathlib import Path

import pytest

from edgeclave.ta.build import GUEST_C
from tests.fixtures.builds import TRUSTED_APPS
from tests.fixtures.needs import tool

BACKEND = Path(__file__).parents[2] / "fixtures" / "native_tee" / "native.c"
WASM_BACKEND = "ec_tee_wasm.c"
VALUES = [
    0, -1, 1 << 62, 1.5, -0.0, 5e-324, 1.7976931348623157e308, 2.0**-44, 0.1, 1e22, 1e23, 123456789012345680.0, 1e-7,
    True, False, None, "", "text", "é\u4e2d\U0001f600", '"\\/\b\f\n\r\t\x00\x1f',
    [], {}, [[[]]], {"a": {"b": [1, 2.5]}},
    {"": 0, "é": [None]}, {f"n{index}": index for index in range(100)}, list(range(100)), "x" * 5000,
]  # fmt: skip


def mirrored(number: str) -> float | str:
    return float(number) if math.isfinite(float(number)) else "too large for a double"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("native") / "mirror"
    sources = [path for path in sorted(GUEST_C.glob("*.c")) if path.name != WASM_BACKEND]
    options = ["-std=c17", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-g", "-ffp-contract=off"]
    options += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{GUEST_C}", "-o", str(out)]
    command = [tool("gcc", "gcc"), *options, BACKEND, TRUSTED_APPS / "json_mirror" / "app.c", *sources]
    subprocess.run(command, check=True, timeout=100)
    return out


def run(program: Path, calls: list[tuple[str, bytes]]) -> list[tuple[int, bytes]]:
    sent = b"".join(struct.pack("<II", len(m), len(p)) + m.encode() + p for m, p in calls)
    ended = subprocess.run([program], input=sent, capture_output=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")
    answers, at = [], 0
    for _ in calls:
        status, size = struct.unpack_from("<II", ended.stdout, at)
        answers.append((status, ended.stdout[at + 8 : at + 8 + size]))
        at += 8 + size
    return answers


def test_values_come_back_as_python_writes_them(program: Path) -> None:
    texts = [json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() for value in VALUES]
    assert run(program, [("mirror", text) for text in texts]) == [(0, text) for text in texts]
    escaped = [json.dumps(value, indent=2).encode() for value in VALUES]
    assert run(program, [("mirror", text) for text in escaped]) == [(0, text) for text in texts]


def test_mangled_payloads_touch_nothing_that_is_not_theirs(program: Path) -> None:
    chosen = random.Random(20)
    calls = []
    for _ in range(20_000):
        text = bytearray(json.dumps(chosen.choice(VALUES), ensure_ascii=chosen.random() < 0.5).encode())
        for _ in range(chosen.randrange(4)):
            where = chosen.randrange(len(text) + 1)
            match chosen.randrange(3):
                case 0:
                    text[where:where] = chosen.choice([b"\\", b'"', b"\\u", b"\xe2", b"[", b"e", b"-", b"\0"])
                case 1:
                    del text[where : where + 1]
                case 2:
                    del text[where:]
        calls.append((chosen.choice(["mirror", "member"]), bytes(text)))
    answers = run(program, calls)
    assert {status for status, _ in answers} >= {0, 400}
    assert any(b"two members named" in text for _, text in answers)
    for (method, payload), (status, text) in zip(calls, answers, strict=True):
        if method == "mirror" and status == 0:
            assert json.loads(text) == json.loads(payload, parse_float=mirrored)


@pytest.mark.parametrize("method", ["not_a_number", "not_utf8", "unfinished", "no_memory", "no_reason", "nothing"])
def test_a_method_that_cannot_answer_leaves_the_next_call_well(program: Path, method: str) -> None:
    last = run(program, [(method, b'"abc"'), ("mirror", b"[1]"), (method, b"1"), ("mirror", b"[2]")])[-1]
    assert last == (0, b"[2]")
