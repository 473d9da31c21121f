from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeclave.errors import PackageError
from edgeclave.ta.build.output import write_package
from edgeclave.ta.package import DEFAULT_LIMITS, PackageLimits, encode_package, read_package

WASM, SIGNATURE = b"\0asm" + bytes(range(256)) * 3, b"signature"
DATA, DIGEST = encode_package(WASM, SIGNATURE, {"org.opencontainers.image.title": "thermometer"})
Part = tuple[tarfile.TarInfo, bytes]


def parts_of(data: bytes) -> list[Part]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = []
        for entry in archive:
            file = archive.extractfile(entry)
            assert file is not None
            found.append((entry, file.read()))
        return found


def tar_of(parts: list[Part], tar_format: int = tarfile.USTAR_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tar_format) as archive:
        for entry, content in parts:
            archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def entry(name: str, content: bytes = b"", **fields: object) -> Part:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def refused(data: bytes, limits: PackageLimits = DEFAULT_LIMITS) -> str:
    with pytest.raises(PackageError) as error:
        read_package(data, limits)
    assert error.value.advice
    return error.value.code


def test_a_package_is_read_back(tmp_path: Path) -> None:
    digest = write_package(tmp_path / "t.ta", WASM, SIGNATURE, {"a": "é"})
    package = read_package(tmp_path / "t.ta")
    assert (package.wasm, package.signature, package.digest) == (WASM, SIGNATURE, digest)
    assert package.annotations == {"a": "é"}
    assert package == read_package((tmp_path / "t.ta").read_bytes())


def test_the_same_content_gives_the_same_file() -> None:
    assert encode_package(WASM, SIGNATURE, {"b": "2", "a": "1"}) == encode_package(
        WASM, SIGNATURE, {"a": "1", "b": "2"}
    )


def test_other_tools_read_it_as_an_oci_layout() -> None:
    parts = {info.name: content for info, content in parts_of(DATA)}
    index = json.loads(parts["index.json"])
    manifest = parts["blobs/sha256/" + index["manifests"][0]["digest"].removeprefix("sha256:")]
    assert "sha256:" + hashlib.sha256(manifest).hexdigest() == DIGEST
    layers = json.loads(manifest)["layers"]
    assert [parts["blobs/sha256/" + layer["digest"].removeprefix("sha256:")] for layer in layers] == [WASM, SIGNATURE]
    assert all(info.mtime == info.uid == info.gid == 0 for info, _ in parts_of(DATA))


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
@example(position=len(DATA) - 1, flip=1)
def test_a_changed_byte_anywhere_is_refused(position: int, flip: int) -> None:
    data = bytearray(DATA)
    data[position] ^= flip
    refused(bytes(data))


@given(st.integers(0, len(DATA) - 1))
def test_a_truncated_package_is_refused(length: int) -> None:
    assert refused(DATA[:length]) == "malformed-package"


@given(st.binary(max_size=4096))
def test_anything_else_is_refused(data: bytes) -> None:
    refused(data)


@given(st.lists(st.sampled_from(parts_of(DATA)), max_size=7))
def test_any_other_choice_or_order_of_parts_is_refused(parts: list[Part]) -> None:
    if tar_of(parts) != DATA:
        refused(tar_of(parts))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda parts: parts[1:], id="a blob is missing"),
        pytest.param(lambda parts: parts[:-1], id="oci-layout is missing"),
        pytest.param(lambda parts: parts[::-1], id="reversed"),
        pytest.param(lambda parts: [parts[0], *parts], id="a part twice"),
        pytest.param(lambda parts: [*parts, entry("readme", b"hello")], id="an extra file"),
        pytest.param(
            lambda parts: sorted(
                [*parts, entry(f"blobs/sha256/{hashlib.sha256(b'more').hexdigest()}", b"more")],
                key=lambda part: part[0].name,
            ),
            id="an extra blob with its right digest",
        ),
        pytest.param(lambda parts: [entry("blobs", type=tarfile.DIRTYPE), *parts], id="a folder"),
        pytest.param(lambda parts: [*parts[:-1], entry("oci-layout", b"{}")], id="another layout version"),
        pytest.param(lambda parts: [*parts, entry("/etc/passwd", b"root")], id="an absolute path"),
        pytest.param(lambda parts: [*parts, entry("../../escape", b"x")], id="a path upwards"),
        pytest.param(lambda parts: [*parts, entry("./oci-layout", b"x")], id="a path that is spelled otherwise"),
        pytest.param(
            lambda parts: [*parts[:-1], entry("oci-layout", type=tarfile.SYMTYPE, linkname="/etc/passwd")], id="a link"
        ),
        pytest.param(
            lambda parts: [*parts[:-1], entry("oci-layout", type=tarfile.LNKTYPE, linkname="index.json")],
            id="a hard link",
        ),
        pytest.param(lambda parts: [*parts[:-1], entry("oci-layout", type=tarfile.FIFOTYPE)], id="a pipe"),
        pytest.param(lambda parts: [*parts[:-1], entry("oci-layout", type=tarfile.CHRTYPE)], id="a device"),
        pytest.param(lambda parts: [*parts[:-1], entry("oci-layout", parts[-1][1], mode=0o4755)], id="a setuid file"),
        pytest.param(lambda parts: [*parts[:-1], entry("oci-layout", parts[-1][1], mtime=1)], id="another time"),
        pytest.param(lambda parts: [*parts[:-1], entry("oci-layout", parts[-1][1], uname="root")], id="an owner"),
        pytest.param(lambda parts: [*parts, entry("x" * 90 + "/" + "y" * 90, b"x")], id="a name over two fields"),
        pytest.param(lambda parts: [], id="nothing"),
    ],
)
def test_a_rearranged_package_is_refused(change: Callable[[list[Part]], list[Part]]) -> None:
    assert refused(tar_of(change(parts_of(DATA)))) == "malformed-package"


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_extended_headers_are_refused(tar_format: int) -> None:
    parts = parts_of(DATA)
    parts[-1][0].pax_headers = {"path": "elsewhere", "comment": "é"}
    assert refused(tar_of([*parts[:-1], entry("é" * 120), parts[-1]], tar_format)) == "malformed-package"


@pytest.mark.parametrize("trailing", [b"\0", bytes(512), bytes(10240), b"x", DATA], ids=len)
def test_bytes_after_the_end_are_refused(trailing: bytes) -> None:
    assert refused(DATA + trailing) == "malformed-package"


def test_a_compressed_package_is_refused() -> None:
    assert refused(gzip.compress(DATA)) == "malformed-package"


def repacked(**changes: object) -> bytes:
    """The package with fields of its OCI manifest replaced, all digests right again."""
    parts = {info.name: content for info, content in parts_of(DATA)}
    old = DIGEST.removeprefix("sha256:")
    manifest = json.dumps(
        json.loads(parts.pop(f"blobs/sha256/{old}")) | changes, sort_keys=True, separators=(",", ":")
    ).encode()
    new = hashlib.sha256(manifest).hexdigest()
    parts[f"blobs/sha256/{new}"] = manifest
    index = json.loads(parts["index.json"])
    index["manifests"][0] |= {"digest": f"sha256:{new}", "size": len(manifest)}
    parts["index.json"] = json.dumps(index, sort_keys=True, separators=(",", ":")).encode()
    return tar_of([entry(name, parts[name]) for name in sorted(parts)])


def layers() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(
        next(content for info, content in parts_of(DATA) if info.name.endswith(DIGEST.removeprefix("sha256:")))
    )["layers"]
    return found


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"layers": layers()[::-1]}, id="layers in another order"),
        pytest.param({"layers": layers()[:1]}, id="no signature"),
        pytest.param({"layers": [*layers(), layers()[0]]}, id="three layers"),
        pytest.param({"layers": [layers()[0] | {"size": 1}, layers()[1]]}, id="another size"),
        pytest.param({"layers": [layers()[0] | {"size": -1}, layers()[1]]}, id="a size below 0"),
        pytest.param({"layers": [layers()[0] | {"digest": "sha256:" + "0" * 64}, layers()[1]]}, id="a missing blob"),
        pytest.param({"layers": [layers()[0] | {"digest": "../../x"}, layers()[1]]}, id="a digest that is a path"),
        pytest.param({"layers": [layers()[0] | {"urls": ["https://x"]}, layers()[1]]}, id="a layer from elsewhere"),
        pytest.param({"layers": [layers()[0] | {"mediaType": "application/gzip"}, layers()[1]]}, id="not Wasm"),
        pytest.param({"layers": [layers()[0], layers()[0]]}, id="the Wasm as its signature"),
        pytest.param({"artifactType": "application/vnd.edgeclave.ta.v2"}, id="another artifact type"),
        pytest.param({"schemaVersion": 1}, id="another schema"),
        pytest.param({"config": layers()[0]}, id="a config with content"),
        pytest.param({"subject": layers()[0]}, id="a subject"),
        pytest.param({"annotations": {"a": 1}}, id="an annotation that is no text"),
        pytest.param({"annotations": {"a": "x" * (64 << 10)}}, id="annotations too large"),
    ],
)
def test_another_oci_manifest_is_refused(changes: dict[str, object]) -> None:
    assert refused(repacked(**changes)) == "malformed-package"


def test_the_repacking_of_these_tests_is_right() -> None:
    assert read_package(repacked()).digest == DIGEST


@pytest.mark.parametrize(
    ("limits", "part"),
    [
        (PackageLimits(package=len(DATA) - 1), "package"),
        (PackageLimits(wasm=len(WASM) - 1), "part"),
        (PackageLimits(signature=len(SIGNATURE) - 1), "signature"),
    ],
)
def test_sizes_have_limits(limits: PackageLimits, part: str) -> None:
    with pytest.raises(PackageError, match=part) as error:
        read_package(DATA, limits)
    assert error.value.code == "package-too-large"


def test_a_size_beyond_the_file_is_refused_before_it_is_read() -> None:
    header = tarfile.TarInfo("oci-layout")
    header.size, header.mode = 60 << 20, 0o644
    assert refused(header.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)) == "malformed-package"


def test_too_large_to_write() -> None:
    with pytest.raises(PackageError, match="package-too-large"):
        encode_package(bytes(64 << 20), SIGNATURE, {})


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.truncate(os.open(tmp_path / "large", os.O_CREAT | os.O_WRONLY), 65 << 20)
    unreadable, large = "package-unreadable", "package-too-large"
    for name, code in (("missing", unreadable), (".", unreadable), ("pipe", unreadable), ("large", large)):
        with pytest.raises(PackageError) as error:
            read_package(tmp_path / name)
        assert error.value.code == code


def test_half_a_file_is_never_left(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.ta")  # as a device would be, /dev/null say
    with pytest.raises(OSError, match="not a file"):
        write_package(tmp_path / "t.ta", WASM, SIGNATURE, {})
    assert (tmp_path / "t.ta").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["t.ta"]
