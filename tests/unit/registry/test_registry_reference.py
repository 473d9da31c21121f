from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.registry import Reference, RegistryError

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("r.example/a", ("r.example", "a", None, None), id="no tag"),
        pytest.param("r.example/a/b-c/d__e:1.0.0", ("r.example", "a/b-c/d__e", "1.0.0", None), id="folders and a tag"),
        pytest.param("R.Example:5000/a:Latest", ("r.example:5000", "a", "Latest", None), id="a port; case of the host"),
        pytest.param(f"localhost/a@{DIGEST}", ("localhost", "a", None, DIGEST), id="by digest"),
        pytest.param(f"127.0.0.1:5000/a:1@{DIGEST}", ("127.0.0.1:5000", "a", "1", DIGEST), id="tag and digest"),
        pytest.param("[::1]:5000/a:1", ("[::1]:5000", "a", "1", None), id="IPv6"),
        pytest.param("docker.io/plant/a:1", ("docker.io", "plant/a", "1", None), id="Docker Hub"),
    ],
)
def test_read_and_written_back(text: str, expected: tuple[str, str, str | None, str | None]) -> None:
    reference = Reference.parse(text)
    assert (reference.host, reference.repository, reference.tag, reference.digest) == expected
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("anomaly", id="a name alone"),
        pytest.param("plant/anomaly:1", id="no registry: docker would ask Docker Hub"),
        pytest.param("https://r.example/a", id="an address"),
        pytest.param("oci://r.example/a", id="another scheme"),
        pytest.param("r.example/A", id="capitals in the repository"),
        pytest.param("r.example/a//b", id="an empty part"),
        pytest.param("r.example/../a", id="upwards"),
        pytest.param("r.example/a:", id="an empty tag"),
        pytest.param("r.example/a:b:c", id="two tags"),
        pytest.param("r.example/a:" + "t" * 129, id="a long tag"),
        pytest.param("r.example/a@sha256:abc", id="a short digest"),
        pytest.param(f"r.example/a@{DIGEST.upper()}", id="a digest in capitals"),
        pytest.param("r.example/a@sha512:" + "0" * 128, id="another hash"),
        pytest.param(f"r.example/a@{DIGEST}\n", id="a line end"),
        pytest.param("r.example:0/a", id="port 0"),
        pytest.param("r.example:65536/a", id="a port beyond"),
        pytest.param("r.example:x/a", id="a port that is none"),
        pytest.param("user:password@r.example/a", id="credentials"),
        pytest.param("-r.example/a", id="an option in place of a host"),
        pytest.param("r..example/a", id="an empty label"),
        pytest.param("[::g]/a", id="no IPv6"),
        pytest.param("r.example/" + "a/" * 200 + "a", id="too long a repository"),
        pytest.param("r.example/" + "a" * 600, id="too long"),
        pytest.param("r.example/a?x=1", id="a query"),
        pytest.param("r.example/a%2e", id="an escape"),
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(RegistryError) as refused:
        Reference.parse(text)
    assert refused.value.code == "bad-registry-reference"
    assert refused.value.advice


@given(st.text(max_size=60) | st.from_regex(r"[a-z.]{1,9}(:\d{1,6})?/[a-z0-9._/:@-]{1,40}", fullmatch=True))
def test_any_text_is_read_the_same_way_twice_or_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except RegistryError:
        return
    assert Reference.parse(str(reference)) == reference
    assert ".." not in reference.repository
    assert not set(str(reference)) & set(" ?#%\n\\")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("[::1]:1", True),
        ("localhost.example", False),
        ("10.0.0.1", False),
    ],
)
def test_what_is_on_this_machine(host: str, local: bool) -> None:
    assert Reference(host, "a").is_local == local


def test_a_version_as_a_tag() -> None:
    assert Reference("r.example", "a").tagged("1.0.0+build.7").tag == "1.0.0_build.7"


def test_docker_hub_has_its_interface_elsewhere() -> None:
    assert Reference.parse("docker.io/plant/a").api_host == "registry-1.docker.io"
