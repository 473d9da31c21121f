"""Names of container images, in the grammar of the distribution project's `reference` package.

>>> problem("registry.example:5000/edgeclave/ta_runner:0.1.0-amd64") is None
True
>>> problem("Edgeclave/ta_runner:1")
"'Edgeclave/ta_runner' has capitals: a repository's name has none"
"""

from __future__ import annotations

import re

MAX_NAME_CHARACTERS = 255
_HOST = re.compile(r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|\[[0-9a-fA-F:]+\]|[A-Za-z0-9-]+(?=:))(?::[0-9]+)?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def split(image: str) -> tuple[str, str, str]:
    """(repository, tag, digest); what is not there is empty."""
    rest, _, digest = image.partition("@")
    repository, colon, tag = rest.rpartition(":")
    return (repository, tag, digest) if colon and "/" not in tag else (rest, "", digest)


def problem(image: str) -> str | None:
    """What is wrong with a name; None when it is right."""
    if not image:
        return "the image's name is empty"
    if "${" in image:
        return (
            f"{image!r} is none of the placeholders ${{MODULES.NAME}}, ${{MODULES.NAME.debug}} and ${{MODULEDIR<PATH>}}"
        )
    if image != image.strip() or re.search(r"\s", image):
        return f"{image!r} has spaces"
    if "://" in image:
        return f"{image!r} is a URL: an image's name begins with the registry, without http://"
    repository, tag, digest = split(image)
    host, slash, name = repository.partition("/")
    if not slash or not _HOST.fullmatch(host):
        name = repository
    if name != name.lower():
        return f"{repository!r} has capitals: a repository's name has none"
    if len(repository) > MAX_NAME_CHARACTERS or not all(map(_COMPONENT.fullmatch, name.split("/"))):
        return f"{repository[:120]!r} is not the name of a repository"
    if not _TAG.fullmatch(tag or "latest"):
        return f"{tag[:120]!r} is not a tag"
    if image.endswith(":") or ("@" in image and not _DIGEST.fullmatch(digest)):
        return f"{image[-80:]!r} does not end with a tag or a sha256 digest"
    return None
