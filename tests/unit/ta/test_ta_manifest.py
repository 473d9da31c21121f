from __future__ import annotations

import copy
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from edgeclave.cose import dcbor
from edgeclave.errors import PackageError
from edgeclave.ta.manifest import MAX_METHODS, MAX_SCHEMA_BYTES, Manifest

OTHER_CURVE = (
    ec.generate_private_key(ec.SECP384R1())
    .public_key()
    .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
)
OTHER_KIND = (
    ed25519.Ed25519PrivateKey.generate()
    .public_key()
    .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
)
REMOVED = object()


def changed(value: dict[str, Any], path: str, new: Any) -> dict[str, Any]:
    value = copy.deepcopy(value)
    target = value
    *parents, last = path.split(".")
    for parent in parents:
        target = target[parent]
    if new is REMOVED:
        del target[last]
    else:
        target[last] = new
    return value


def test_a_manifest_survives_its_encoding(manifest: Manifest) -> None:
    encoded = dcbor(manifest.to_map())
    assert Manifest.from_map(cbor2.loads(encoded)) == manifest


def test_the_order_of_services_does_not_change_the_identity(manifest_map: dict[str, Any], manifest: Manifest) -> None:
    turned = Manifest(
        **{field: getattr(manifest, field) for field in manifest.__struct_fields__ if field != "services"},
        services=("log", "emit", "log"),
    )
    assert dcbor(turned.to_map()) == dcbor(manifest_map)


@pytest.mark.parametrize(
    ("path", "new"),
    [
        pytest.param("name", REMOVED, id="no name"),
        pytest.param("name", "", id="empty name"),
        pytest.param("name", "Thermo Meter", id="name with a space"),
        pytest.param("name", "a" * 64, id="name too long"),
        pytest.param("name", "thermometer\n", id="name with a line end"),
        pytest.param("name", b"thermometer", id="name as bytes"),
        pytest.param("version", "1.0\n", id="version with a line end"),
        pytest.param("version", 1, id="version as a number"),
        pytest.param("product_id", -1, id="product id below 0"),
        pytest.param("product_id", 65536, id="product id over 16 bits"),
        pytest.param("product_id", 1.0, id="product id as a float"),
        pytest.param("product_id", True, id="product id as a boolean"),
        pytest.param("security_version", "3", id="security version as text"),
        pytest.param("security_version", REMOVED, id="no security version"),
        pytest.param("accept_state_from_svn", 4, id="accepts state from a later version"),
        pytest.param("accept_state_from_svn", REMOVED, id="default left out"),
        pytest.param("debug", 1, id="debug as a number"),
        pytest.param("debug", REMOVED, id="debug left out"),
        pytest.param("services", ["log", "emit"], id="services unsorted"),
        pytest.param("services", ["emit", "emit"], id="service twice"),
        pytest.param("services", ["emit", "network"], id="unknown service"),
        pytest.param("services", "emit", id="services as text"),
        pytest.param("limits.memory_mib", 8, id="too little memory"),
        pytest.param("limits.memory_mib", 4096, id="too much memory"),
        pytest.param("limits.deadline_ms", 0, id="no time"),
        pytest.param("limits.deadline_ms", 60_001, id="too much time"),
        pytest.param("limits.message_kib", 1025, id="messages too large"),
        pytest.param("limits.disk", 1, id="unknown limit"),
        pytest.param("limits", {}, id="limits left to defaults"),
        pytest.param("methods", {}, id="no method"),
        pytest.param(
            "methods", {f"m{index}": {"channel": "any"} for index in range(MAX_METHODS + 1)}, id="many methods"
        ),
        pytest.param("methods", {"a/b": {"channel": "any"}}, id="method name with a slash"),
        pytest.param("methods", {"": {"channel": "any"}}, id="method without a name"),
        pytest.param("methods.observe.channel", "secret", id="unknown channel"),
        pytest.param("methods.observe.input_schema", "x" * (MAX_SCHEMA_BYTES + 1), id="schema too large"),
        pytest.param("methods.observe.output_schema", None, id="empty option written out"),
        pytest.param("methods.observe.timeout", 1, id="unknown field of a method"),
        pytest.param("outputs.summary", {}, id="output without an authority"),
        pytest.param("outputs.summary.recipient_authority", b"", id="no authority key"),
        pytest.param("outputs.summary.recipient_authority", "MFkw", id="authority as text"),
        pytest.param("outputs.summary.recipient_authority", OTHER_CURVE, id="authority on another curve"),
        pytest.param("outputs.summary.recipient_authority", OTHER_KIND, id="authority of another kind"),
        pytest.param("beacon_authority", b"\x30\x00", id="beacon authority is no key"),
        pytest.param("beacon_authority", None, id="empty beacon authority written out"),
        pytest.param("storage_protection", "strong", id="unknown storage protection"),
        pytest.param("environment", {}, id="unknown field"),
        pytest.param("entry_point", "main", id="another unknown field"),
    ],
)
def test_a_broken_manifest_is_refused(manifest_map: dict[str, Any], path: str, new: object) -> None:
    with pytest.raises(PackageError) as refused:
        Manifest.from_map(changed(manifest_map, path, new))
    assert refused.value.code == "bad-manifest"
    assert refused.value.advice


def test_an_authority_with_a_trailing_byte_is_refused(manifest_map: dict[str, Any]) -> None:
    key = manifest_map["outputs"]["summary"]["recipient_authority"]
    with pytest.raises(PackageError, match="P-256"):
        Manifest.from_map(changed(manifest_map, "outputs.summary.recipient_authority", key + b"\0"))


@pytest.mark.parametrize("value", [None, [], 1, "text", {1: 2}, {"name": {}}], ids=repr)
def test_something_else_is_refused(value: object) -> None:
    with pytest.raises(PackageError, match="bad-manifest"):
        Manifest.from_map(value)


def test_the_whole_has_a_limit(manifest_map: dict[str, Any]) -> None:
    methods = {f"m{index}": {"channel": "any", "input_schema": " " * MAX_SCHEMA_BYTES} for index in range(10)}
    with pytest.raises(PackageError, match="over the limit"):
        Manifest.from_map(changed(manifest_map, "methods", methods))


def test_the_error_names_the_field(manifest_map: dict[str, Any]) -> None:
    with pytest.raises(PackageError) as refused:
        Manifest.from_map(changed(manifest_map, "limits.memory_mib", 8))
    assert refused.value.where == "manifest: limits.memory_mib"
