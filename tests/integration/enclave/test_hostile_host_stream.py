"""A hostile host says anything, in any order, to a real enclave: it is answered or refused, and never meets a defect.

Each example is one enclave that is started as it should be and then hears requests of every kind with arbitrary
content, some of them cut or with altered bytes, and then the end of the pipe.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeclave.enclave.__main__ import EXIT_REFUSED
from edgeclave.enclave.messages import (
    BeaconRequest,
    CallRequest,
    CompileRequest,
    Counted,
    EvidenceRequest,
    RecipientsRequest,
    Reply,
    Started,
    StopRequest,
    TakenUp,
)
from edgeclave.enclave.pipe import LENGTH_BYTES, decode_reply, encode_frame, frame_length
from edgeclave.platforms.emulator import Emulator
from edgeclave.platforms.enclave_process import Descriptors
from tests.fixtures.wat.packages import METHODS, HandmadePackage, minimal_package

from .conftest import Slot

pytestmark = pytest.mark.slow

SECONDS = 60
times = st.integers(0, 1 << 48)
texts = st.text(max_size=40)
blobs = st.binary(max_size=300)
quick_methods = st.sampled_from([*(name for name in METHODS if name not in ("grow", "loop")), "nothing"])
requests = st.one_of(
    st.builds(CallRequest, id=texts, method=quick_methods | texts, payload=texts, host_time=times),
    st.builds(EvidenceRequest, host_time=times, nonce=st.none() | st.binary(min_size=8, max_size=64)),
    st.builds(RecipientsRequest, output=st.just("out") | texts, set=blobs),
    st.builds(BeaconRequest, beacon=blobs, host_time=times),
    st.builds(Counted, answer=blobs),
    st.just(TakenUp()),
    st.just(CompileRequest()),
    st.just(StopRequest()),
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    frame = encode_frame(draw(requests))
    match draw(st.integers(0, 9)):
        case 0:
            return frame[: draw(st.integers(0, len(frame)))]
        case 1:
            place = draw(st.integers(0, len(frame) - 1))
            return frame[:place] + bytes([frame[place] ^ draw(st.integers(1, 255))]) + frame[place + 1 :]
    return frame


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> HandmadePackage:
    return minimal_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    folder: Path = tmp_path_factory.mktemp("device")
    return Emulator(folder / "emulator", folder / "cache")


@given(heard=st.lists(frames(), max_size=12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_it_hears_it_answers_or_refuses(
    heard: list[bytes], package: HandmadePackage, device: Emulator
) -> None:
    start = encode_frame(Slot().request(package.recipients))
    descriptors = (os.open(package.path, os.O_RDONLY), device._secrets())
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-m", "edgeclave.enclave", *Descriptors(*descriptors, None, None).arguments()],
            input=start + b"".join(heard),
            pass_fds=descriptors,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert ended.returncode in (0, EXIT_REFUSED), lines
    assert not [line for line in lines if "defect" in line["message"]]
    replies = _replies(ended.stdout)
    assert [isinstance(reply, Started) for reply in replies] == [True, *itertools.repeat(False, len(replies) - 1)]
    assert len(replies) <= 1 + len(heard)


def _replies(output: bytes) -> list[Reply]:
    replies = []
    while output:
        length = frame_length(output[:LENGTH_BYTES])
        replies.append(decode_reply(output[LENGTH_BYTES : LENGTH_BYTES + length]))
        output = output[LENGTH_BYTES + length :]
    return replies
