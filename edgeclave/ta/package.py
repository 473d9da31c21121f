"""The package: one deterministic file that holds a trusted application's Wasm and its signature.

It is an OCI image layout (image-spec 1.1) in a tar, so that the same bytes go through any OCI registry:

- `blobs/sha256/<hex>`: the Wasm, the signature, the empty config `{}`, and the OCI manifest that names them;
- `index.json`: names the OCI manifest;
- `oci-layout`.

The reader obeys these rules, because it runs on bytes from an adversary, inside the trust boundary:

- one package has one encoding: each tar header must be, byte for byte, the one the writer makes for that name and size,
  so that links, devices, modes, owners, times, long names and paths that lead elsewhere cannot be expressed;
- every size is checked before anything is read, every digest before anything is used;
- exactly the parts above, in the order of their names, then the end mark, then nothing.

The package digest, `sha256:<hex>` of the OCI manifest, covers everything in the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgeclave.errors import PackageError

ARTIFACT_TYPE = "application/vnd.edgeclave.ta.v1"
WASM_TYPE = "application/wasm"
SIGNATURE_TYPE = "application/vnd.edgeclave.ta.signature.v1+cose"
OCI_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_OCI_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY_CONFIG = b"{}"
_BLOCK = tarfile.BLOCKSIZE
_BLOBS = 4
_PARTS = _BLOBS + 2
_BLOB_NAME = re.compile(r"blobs/sha256/[0-9a-f]{64}\Z")
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(frozen=True)
class PackageLimits:
    """Sizes in bytes. A Python trusted application is about 19 MB, most of it its interpreter."""

    package: int = 64 << 20
    wasm: int = 63 << 20
    signature: int = 512 << 10
    oci_manifest: int = 64 << 10


DEFAULT_LIMITS = PackageLimits()


@dataclass(frozen=True)
class Package:
    """A well-formed package whose parts match their digests (`wasm_digest` is SHA-256). Its signature is not yet
    verified. `wasm` is a view, since copying 19 MB takes as long as verifying them."""

    digest: str
    wasm: memoryview
    wasm_digest: bytes
    signature: bytes
    annotations: Mapping[str, str]


_Digest = Annotated[str, msgspec.Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z")]


class Descriptor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A part of a package, by digest (`sha256:<hex>`) and size in bytes."""

    media_type: str
    digest: _Digest
    size: Annotated[int, msgspec.Meta(ge=0)]


class OciManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Its `layers` are the Wasm and the signature."""

    schema_version: Literal[2]
    media_type: str
    artifact_type: str
    config: Descriptor
    layers: Annotated[list[Descriptor], msgspec.Meta(min_length=2, max_length=2)]
    annotations: dict[str, str]


def encode_package(wasm: bytes, signature: bytes, annotations: Mapping[str, str]) -> tuple[bytes, str]:
    """The bytes of a package and its digest. Raises PackageError `package-too-large`."""
    pieces, digest = package_pieces(wasm, signature, annotations)
    return b"".join(pieces), digest


def package_pieces(
    wasm: bytes | memoryview, signature: bytes, annotations: Mapping[str, str]
) -> tuple[list[bytes | memoryview], str]:
    """What `encode_package` gives, in pieces to write one after the other: the Wasm is not copied."""
    manifest = encode_oci_manifest(wasm, signature, annotations)
    parts: dict[str, bytes | memoryview] = {
        f"blobs/sha256/{_sha256(blob)}": blob for blob in (EMPTY_CONFIG, wasm, signature, manifest)
    }
    parts |= {"index.json": _index(manifest), "oci-layout": _LAYOUT}
    pieces: list[bytes | memoryview] = []
    for name, content in sorted(parts.items()):
        pieces += [_header(name, len(content)), content, bytes(-len(content) % _BLOCK)]
    pieces.append(_end_mark(sum(map(len, pieces))))
    limits = DEFAULT_LIMITS
    for what, size, most in (
        ("package", sum(map(len, pieces)), limits.package),
        ("Wasm", len(wasm), limits.wasm),
        ("signature", len(signature), limits.signature),
        ("OCI manifest", len(manifest), limits.oci_manifest),
    ):
        _check_size(what, size, most)
    return pieces, f"sha256:{_sha256(manifest)}"


def encode_oci_manifest(wasm: bytes | memoryview, signature: bytes, annotations: Mapping[str, str]) -> bytes:
    """The OCI manifest of a package, in its one form."""
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": _descriptor(_OCI_EMPTY_TYPE, EMPTY_CONFIG),
            "layers": [_descriptor(WASM_TYPE, wasm), _descriptor(SIGNATURE_TYPE, signature)],
            "annotations": dict(annotations),
        }
    )


def read_package(source: bytes | Path, limits: PackageLimits = DEFAULT_LIMITS) -> Package:
    """Reads a package by the rules of this module. A path may be `/proc/self/fd/N`.

    Raises:
        PackageError: `package-unreadable`, `package-too-large`, `malformed-package`, `wrong-digest`.
    """
    data = _read_file(source, limits.package) if isinstance(source, Path) else source
    _check_size("package", len(data), limits.package)
    parts = _read_tar(memoryview(data), limits)
    blobs = {name.removeprefix("blobs/sha256/"): part for name, part in parts.items() if name.startswith("blobs/")}
    if len(blobs) != _BLOBS or list(parts)[_BLOBS:] != ["index.json", "oci-layout"]:
        raise _malformed("it must hold four blobs, index.json and oci-layout, in this order and nothing else")
    for digest, blob in blobs.items():
        if _sha256(blob) != digest:
            raise PackageError(
                "wrong-digest",
                "a part of the package was altered",
                where=f"blobs/sha256/{digest}",
                advice="fetch the package again",
            )
    manifest_bytes = _find_oci_manifest(bytes(parts["index.json"]), blobs, limits)
    if parts["oci-layout"] != _LAYOUT:
        raise _malformed("oci-layout is not version 1.0.0")
    manifest = parse_oci_manifest(manifest_bytes)
    wasm, signature = (_layer(blobs, layer) for layer in manifest.layers)
    _check_size("signature", len(signature), limits.signature)
    digest = f"sha256:{_sha256(manifest_bytes)}"
    named = (digest, *(part.digest for part in (manifest.config, *manifest.layers)))
    if {name.removeprefix("sha256:") for name in named} != set(blobs):
        raise _malformed("it holds a blob that its OCI manifest does not name")
    wasm_digest = bytes.fromhex(manifest.layers[0].digest.removeprefix("sha256:"))
    return Package(digest, wasm, wasm_digest, bytes(signature), manifest.annotations)


def _read_file(path: Path, most: int) -> bytes:
    try:
        # Not blocking: a pipe in the place of the file would wait for its writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise PackageError("package-unreadable", "this is not a file", where=str(path))
            _check_size("package", status.st_size, most)
            return file.read(most + 1)
    except OSError as error:
        raise PackageError(
            "package-unreadable",
            f"the package cannot be read: {error.strerror}",
            where=str(path),
            advice="check the path and its permissions",
        ) from error


def _read_tar(data: memoryview, limits: PackageLimits) -> dict[str, memoryview]:
    parts: dict[str, memoryview] = {}
    position = 0
    while any(header := bytes(data[position : position + _BLOCK])):
        name, size = _name_and_size(header)
        if len(parts) == _PARTS or (parts and name <= next(reversed(parts))):
            raise _malformed(f"part {name} is repeated, out of order or one too many")
        _check_size(f"part {name}", size, limits.wasm)
        start, end = position + _BLOCK, position + _BLOCK + size
        position = end + -size % _BLOCK
        if position > len(data):
            raise _malformed(f"part {name} is cut off")
        if any(data[end:position]):
            raise _malformed(f"there are bytes after the end of part {name}")
        parts[name] = data[start:end]
    if data[position:] != _end_mark(position):
        raise _malformed("the end mark is missing, or something follows it")
    return parts


def _name_and_size(header: bytes) -> tuple[str, int]:
    try:
        name = header[:100].rstrip(b"\0").decode("ascii")
        size = int(header[124:135].decode("ascii"), 8)
        known = name in ("index.json", "oci-layout") or _BLOB_NAME.match(name) is not None
        if known and header == _header(name, size):
            return name, size
    except ValueError:
        pass
    raise _malformed("it holds something that is not a plain part of a package")


def _find_oci_manifest(index: bytes, blobs: Mapping[str, memoryview], limits: PackageLimits) -> bytes:
    for blob in blobs.values():
        if len(blob) <= limits.oci_manifest and index == _index(bytes(blob)):
            return bytes(blob)
    raise _malformed("index.json does not name exactly one package in it")


def parse_oci_manifest(data: bytes) -> OciManifest:
    """Reads an OCI manifest that is of a trusted application and in its one form.

    Raises:
        PackageError: `malformed-package`.
    """
    try:
        manifest = msgspec.json.decode(data, type=OciManifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _malformed(f"its OCI manifest is not one of a trusted application: {error}") from None
    kinds = (manifest.media_type, manifest.artifact_type, *(layer.media_type for layer in manifest.layers))
    if kinds != (OCI_MANIFEST_TYPE, ARTIFACT_TYPE, WASM_TYPE, SIGNATURE_TYPE):
        raise _malformed("its OCI manifest is of another type")
    if msgspec.to_builtins(manifest.config) != _descriptor(_OCI_EMPTY_TYPE, EMPTY_CONFIG):
        raise _malformed("its config is not empty")
    if _json(msgspec.to_builtins(manifest)) != data:
        raise _malformed("its OCI manifest is not in its one accepted form")
    return manifest


def _layer(blobs: Mapping[str, memoryview], descriptor: Descriptor) -> memoryview:
    blob = blobs.get(descriptor.digest.removeprefix("sha256:"))
    if blob is None or len(blob) != descriptor.size:
        raise _malformed(f"the part {descriptor.digest} that its OCI manifest names is missing or of another size")
    return blob


def _index(manifest: bytes) -> bytes:
    entry = {**_descriptor(OCI_MANIFEST_TYPE, manifest), "artifactType": ARTIFACT_TYPE}
    return _json({"schemaVersion": 2, "mediaType": OCI_INDEX_TYPE, "manifests": [entry]})


def _descriptor(media_type: str, content: bytes | memoryview) -> dict[str, str | int]:
    return {"mediaType": media_type, "digest": f"sha256:{_sha256(content)}", "size": len(content)}


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry.tobuf(tarfile.USTAR_FORMAT)


def _end_mark(length: int) -> bytes:
    """Two zero blocks, then zeros up to a whole record of 20 blocks, as every tar program writes it."""
    return bytes(2 * _BLOCK + -(length + 2 * _BLOCK) % tarfile.RECORDSIZE)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_size(what: str, size: int, most: int) -> None:
    if size > most:
        raise PackageError(
            "package-too-large", f"{what}: {size} bytes are over the limit of {most}", advice="make it smaller"
        )


def _malformed(what: str) -> PackageError:
    return PackageError("malformed-package", what, advice="make it with `edgeclave ta sign`, or fetch it again")
