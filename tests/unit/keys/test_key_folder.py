"""The key folder and `.env` files: what is written, who may read it, and what is refused."""

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from edgeclave.cose import generate_key, thumbprint
from edgeclave.errors import ConfigurationError
from edgeclave.keys import (
    create_key,
    key_folder,
    key_or_new,
    list_keys,
    load_private_key,
    load_public_key,
    public_pem,
    set_env_variable,
)


def refusal(function, *arguments):
    with pytest.raises(ConfigurationError) as refused:
        function(*arguments)
    return refused.value


def private_pem(key, password=None):
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


class TestKeys:
    def test_both_halves_are_written_and_read(self, tmp_path):
        key = create_key(tmp_path / "keys", "reader")
        assert load_private_key(tmp_path / "keys/reader.key.pem").private_numbers() == key.private_numbers()
        assert load_public_key(tmp_path / "keys/reader.pub.pem") == key.public_key()

    def test_only_the_owner_reads_the_private_half(self, tmp_path):
        create_key(tmp_path / "keys", "reader")
        assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "keys/reader.key.pem").stat().st_mode) == 0o600

    def test_of_many_that_ask_at_once_one_makes_the_key(self, tmp_path):
        together = threading.Barrier(4)

        def ask(_):
            together.wait()
            return key_or_new(tmp_path / "keys", "developer").private_numbers()

        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(ask, range(4)))) == 1
        assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["developer.key.pem", "developer.pub.pem"]

    def test_what_an_interruption_left_is_made_whole(self, tmp_path):
        key = key_or_new(tmp_path, "developer")
        (tmp_path / "developer.pub.pem").unlink()
        assert key_or_new(tmp_path, "developer").private_numbers() == key.private_numbers()
        assert load_public_key(tmp_path / "developer.pub.pem") == key.public_key()

    def test_a_key_whose_private_half_is_elsewhere_is_not_made_anew(self, tmp_path):
        create_key(tmp_path, "authority")
        (tmp_path / "authority.key.pem").unlink()
        assert refusal(key_or_new, tmp_path, "authority").code == "no-such-key"

    def test_a_private_key_that_others_can_read_is_refused(self, tmp_path):
        create_key(tmp_path, "reader")
        (tmp_path / "reader.key.pem").chmod(0o640)
        error = refusal(load_private_key, tmp_path / "reader.key.pem")
        assert error.code == "key-exposed"
        assert "chmod 600" in error.advice

    def test_a_key_is_never_replaced(self, tmp_path):
        before = create_key(tmp_path, "reader").public_key()
        assert refusal(create_key, tmp_path, "reader").code == "key-exists"
        (tmp_path / "reader.key.pem").unlink()
        assert refusal(create_key, tmp_path, "reader").code == "key-exists"
        assert load_public_key(tmp_path / "reader.pub.pem") == before

    def test_keys_are_listed_with_what_is_there(self, tmp_path):
        mine = create_key(tmp_path, "mine")
        theirs = generate_key().public_key()
        (tmp_path / "theirs.pub.pem").write_bytes(public_pem(theirs))
        assert [(key.name, key.thumbprint, key.private) for key in list_keys(tmp_path)] == [
            ("mine", thumbprint(mine), True),
            ("theirs", thumbprint(theirs), False),
        ]

    def test_no_folder_has_no_keys(self, tmp_path):
        assert list_keys(tmp_path / "nowhere") == []

    @pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "-rf", "x" * 65, "a\n"])
    def test_a_name_that_is_no_name_is_refused(self, tmp_path, name):
        assert refusal(create_key, tmp_path, name).code == "bad-key-name"

    def test_a_key_that_is_not_there(self, tmp_path):
        error = refusal(load_public_key, tmp_path / "reader.pub.pem")
        assert error.code == "no-such-key"
        assert "edgeclave keys new reader" in error.advice

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", id="not a key"),
            pytest.param(private_pem(ec.generate_private_key(ec.SECP384R1())), id="P-384"),
            pytest.param(private_pem(ed25519.Ed25519PrivateKey.generate()), id="Ed25519"),
            pytest.param(private_pem(generate_key(), b"secret"), id="encrypted"),
            pytest.param(public_pem(generate_key().public_key()), id="the public half"),
            pytest.param(b"#" * (17 << 10), id="too large"),
        ],
    )
    def test_a_private_key_that_cannot_be_used(self, tmp_path, data):
        path = tmp_path / "reader.key.pem"
        path.touch(0o600)
        path.write_bytes(data)
        assert refusal(load_private_key, path).code == "bad-key"

    @pytest.mark.parametrize(
        "data",
        [b"", private_pem(generate_key()), public_pem(ec.generate_private_key(ec.SECP384R1()).public_key())],
        ids=["empty", "the private half", "P-384"],
    )
    def test_a_public_key_that_cannot_be_used(self, tmp_path, data):
        (tmp_path / "reader.pub.pem").write_bytes(data)
        assert refusal(load_public_key, tmp_path / "reader.pub.pem").code == "bad-key"

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        assert refusal(create_key, tmp_path / "file", "reader").code == "cannot-write"

    def test_the_environment_names_the_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("EDGECLAVE_KEYS", str(tmp_path))
        assert key_folder() == tmp_path
        monkeypatch.delenv("EDGECLAVE_KEYS")
        assert str(key_folder()) == ".edgeclave/keys"


class TestEnvironmentFile:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            pytest.param(None, "NAME=value\n", id="no file"),
            pytest.param("", "NAME=value\n", id="an empty file"),
            pytest.param("NAME=\n", "NAME=value\n", id="an empty variable"),
            pytest.param("# hello\nNAME=old\nOTHER=1\n", "# hello\nNAME=value\nOTHER=1\n", id="in its place"),
            pytest.param("NAME=1\nOTHER=1\nNAME=2\n", "NAME=value\nOTHER=1\n", id="twice"),
            pytest.param("#NAME=old\nNAMES=1\n", "#NAME=old\nNAMES=1\nNAME=value\n", id="others that look alike"),
            pytest.param("export NAME=old", "NAME=value\n", id="exported"),
        ],
    )
    def test_one_variable_is_set_and_the_rest_stays(self, tmp_path, before, after):
        path = tmp_path / ".env"
        if before is not None:
            path.write_text(before)
        set_env_variable(path, "NAME", "value")
        assert path.read_text() == after
        assert list(tmp_path.iterdir()) == [path]

    def test_a_value_with_spaces_is_quoted(self, tmp_path):
        set_env_variable(tmp_path / ".env", "NAME", "/my folder/anomaly.ta")
        assert (tmp_path / ".env").read_text() == 'NAME="/my folder/anomaly.ta"\n'

    def test_who_may_read_the_file_stays(self, tmp_path):
        path = tmp_path / ".env"
        path.touch(0o600)
        set_env_variable(path, "NAME", "value")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        ("name", "value"), [("A B", "x"), ("", "x"), ("1A", "x"), ("A", "x\nB=y"), ("A", '"'), ("A", "x\0")]
    )
    def test_what_cannot_stand_in_it_is_refused(self, tmp_path, name, value):
        assert refusal(set_env_variable, tmp_path / ".env", name, value).code == "bad-variable"

    def test_a_file_that_cannot_be_written(self, tmp_path):
        assert refusal(set_env_variable, tmp_path / "nowhere/.env", "NAME", "value").code == "cannot-write"
        assert not (tmp_path / "nowhere").exists()

    def test_what_is_no_file_is_not_replaced_by_one(self, tmp_path):
        os.mkfifo(tmp_path / ".env")  # as a device would be, /dev/null say
        assert refusal(set_env_variable, tmp_path / ".env", "NAME", "value").code == "cannot-write"
        assert (tmp_path / ".env").is_fifo()

    def test_of_many_variables_set_at_once_none_is_lost(self, tmp_path):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: set_env_variable(tmp_path / ".env", f"NAME_{n}", str(n)), range(40)))
        assert set((tmp_path / ".env").read_text().split()) == {f"NAME_{n}={n}" for n in range(40)}
