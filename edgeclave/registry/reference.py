"""How a package in a registry is named: `HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]`, as docker names images.

>>> reference = Reference.parse("registry.example:5000/plant/anomaly:1.0.0")
>>> reference.repository, reference.tag
('plant/anomaly', '1.0.0')
>>> str(reference.at("sha256:" + "0" * 64))[:60]
'registry.example:5000/plant/anomaly:1.0.0@sha256:00000000000'
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from dataclasses import dataclass

from edgeclave.registry.errors import RegistryError

MAX_REFERENCE_CHARACTERS = 512
MAX_REPOSITORY_CHARACTERS = 255
"""As docker and the registries have it."""
DOCKER_HUB = "docker.io"
_DOCKER_HUB_API = "registry-1.docker.io"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(
    rf"(?P<name>{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\])(?::(?P<port>[0-9]{{1,5}}))?\Z", re.IGNORECASE
)
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(
    rf"(?P<repository>{_PART}(?:/{_PART})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?\Z"
)
_NOT_IN_A_TAG = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True)
class Reference:
    """`host` is lower case, with its port if one is given; `digest` is that of the OCI manifest: `sha256:<hex>`."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Raises RegistryError `bad-registry-reference`."""
        if len(text) > MAX_REFERENCE_CHARACTERS:
            raise _bad(text, f"it is longer than {MAX_REFERENCE_CHARACTERS} characters")
        host, slash, path = text.partition("/")
        if "://" in text:
            raise _bad(text, "it begins with a scheme, which a reference has not")
        if not slash or not ("." in host or ":" in host or host == "localhost"):
            raise _bad(text, "it names no registry")
        if not _is_host(host):
            raise _bad(text, "its host or port is none")
        found = _PATH.match(path)
        if found is None or len(found["repository"]) > MAX_REPOSITORY_CHARACTERS:
            raise _bad(text, "its repository, tag or digest has a form that registries do not accept")
        return cls(host.lower(), found["repository"], found["tag"], found["digest"])

    @property
    def api_host(self) -> str:
        """Where the registry's interface is; it has another name for Docker Hub alone."""
        return _DOCKER_HUB_API if self.host == DOCKER_HUB else self.host

    @property
    def is_local(self) -> bool:
        """Whether the registry runs on this machine, by its name."""
        return is_loopback(host_name(self.host))

    def at(self, digest: str) -> Reference:
        """The same with a digest."""
        return dataclasses.replace(self, digest=digest)

    def tagged(self, version: str) -> Reference:
        """The same with a tag made from a version, which may have a plus sign where tags may not."""
        return dataclasses.replace(self, tag=_NOT_IN_A_TAG.sub("_", version)[:128])

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.host}/{self.repository}{tag}{digest}"


def host_name(host: str) -> str:
    """Without port and brackets."""
    found = _HOST.match(host)
    return (found["name"] if found else host).strip("[]")


def is_loopback(name: str) -> bool:
    """Whether a name or address stays on this machine whatever a name server says."""
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost"


def _is_host(text: str) -> bool:
    found = _HOST.match(text)
    if found is None or (found["port"] is not None and not 0 < int(found["port"]) < 65536):
        return False
    try:
        return not text.startswith("[") or ipaddress.ip_address(found["name"].strip("[]")).version == 6
    except ValueError:
        return False


def _bad(text: str, why: str) -> RegistryError:
    return RegistryError(
        "bad-registry-reference",
        f"this does not name a package in a registry: {why}",
        where=text[:200],
        advice="give it as registry.example/repository:tag, with @sha256:... for one exact package; "
        "a path of a file begins with / or ./",
    )
