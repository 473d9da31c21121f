from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from edgeclave.cli.platform import app
from edgeclave.cose import spki
from edgeclave.errors import EnclaveError
from edgeclave.evidence.runtime import runtime_digest
from edgeclave.platforms.emulator import Emulator


@pytest.fixture
def emulator(tmp_path: Path) -> Emulator:
    return Emulator(tmp_path / "emulator", tmp_path / "cache")


def test_keys_are_made_once_and_for_their_owner_only(emulator: Emulator) -> None:
    anchor = emulator.anchor()
    assert emulator.anchor() == anchor
    assert Emulator(emulator.directory, emulator.directory).platform_instance() == emulator.platform_instance()
    modes = {path.name: path.stat().st_mode & 0o777 for path in emulator.directory.iterdir()}
    assert modes == {"root.key": 0o600, "attestation.key.pem": 0o600, "attestation.pub.pem": 0o644}
    assert emulator.directory.stat().st_mode & 0o777 == 0o700
    public = serialization.load_pem_public_key(emulator.anchor_file.read_bytes())
    assert spki(public) == anchor  # type: ignore[arg-type]


def test_many_at_once_make_one_device(emulator: Emulator) -> None:
    with ThreadPoolExecutor(8) as pool:
        anchors = set(pool.map(lambda _: Emulator(emulator.directory, emulator.directory).anchor(), range(16)))
    assert len(anchors) == 1


@pytest.mark.parametrize("lost", ["root.key", "attestation.key.pem"])
def test_a_lost_key_is_refused_and_not_made_anew(emulator: Emulator, lost: str) -> None:
    emulator.anchor()
    (emulator.directory / lost).unlink()
    with pytest.raises(EnclaveError) as refusal:
        emulator.anchor()
    assert refusal.value.code == "emulator-keys-unusable"
    assert not (emulator.directory / lost).exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("attestation.key.pem", b"nonsense", id="no PEM"),
        pytest.param("attestation.key.pem", b"", id="an empty file"),
    ],
)
def test_a_broken_key_is_refused(emulator: Emulator, name: str, content: bytes) -> None:
    emulator.anchor()
    (emulator.directory / name).write_bytes(content)
    with pytest.raises(EnclaveError, match="emulator-keys-unusable"):
        emulator.anchor()


def test_a_lost_anchor_file_is_written_again(emulator: Emulator) -> None:
    anchor = emulator.anchor()
    emulator.anchor_file.unlink()
    assert emulator.anchor() == anchor
    assert emulator.anchor_file.exists()


def test_show_prints_what_a_reader_pins(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["show", "--state", str(tmp_path / "e"), "--json"])
    assert result.exit_code == 0, result.output
    shown = json.loads(result.output)
    assert shown["class"] == "emulated"
    assert shown["runtime_digest"] == runtime_digest().hex()
    assert Path(shown["anchor_file"]).exists()
    plain = CliRunner().invoke(app, ["show", "--state", str(tmp_path / "e")])
    assert shown["platform_instance"] in plain.output


def test_probe_says_what_the_emulator_is_worth() -> None:
    assert "proves nothing" in CliRunner().invoke(app, ["probe"]).output
    assert "stands in for hardware" in CliRunner().invoke(app, ["probe"]).output
    found = json.loads(CliRunner().invoke(app, ["probe", "--json"]).output)
    assert {name: platform["available"] for name, platform in found.items()} == {
        "emulator": True,
        "emulator-with-counter": True,
    }


def test_the_key_of_another_curve_is_no_attestation_key(emulator: Emulator) -> None:
    emulator.anchor()
    other = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (emulator.directory / "attestation.key.pem").write_bytes(other)
    with pytest.raises(EnclaveError, match="not a P-256 key"):
        emulator.anchor()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EnclaveError) as refusal:
        Emulator(tmp_path / "file" / "emulator", tmp_path / "cache").anchor()
    assert refusal.value.code == "emulator-keys-unusable"
    assert refusal.value.where == str(tmp_path / "file" / "emulator")
