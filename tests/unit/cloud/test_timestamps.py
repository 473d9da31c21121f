"""Archives whose results are provable at T: a timestamp authority of openssl says when they existed."""

from __future__ import annotations

import json
import subprocess
import time
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.cli.main import run
from edgeclave.cloud import timestamps
from edgeclave.cloud.archive import ISSUER, Archive
from edgeclave.cloud.heads import HeadStore
from edgeclave.cloud.reader import Reader
from edgeclave.cloud.timestamps import Authorities, Timestamp, find_timestamp, list_files, unlisted
from edgeclave.cloud.verifier_service.keyring import load_keyring, new_key
from edgeclave.errors import ConfigurationError, EvidenceError
from edgeclave.evidence.endorsements import Endorsements, store
from edgeclave.evidence.policy_embedding import embed_policy
from edgeclave.evidence.policy_file import load_policy
from tests.fixtures.intel_hardware import IntelHardware
from tests.fixtures.timestamp_authority import TimestampAuthority
from tests.fixtures.vendor_service import vendor_stand_in

from .conftest import World
from .test_archive import POLICY, SgxInstance, collateral

NOW = int(time.time())
HOUR = 3600


@pytest.fixture(scope="module")
def hardware():
    return IntelHardware(NOW, days=3650)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return TimestampAuthority(tmp_path_factory.mktemp("authority") / "tsa")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Another authority, with the names of the first."""
    return TimestampAuthority(tmp_path_factory.mktemp("foreign") / "tsa")


@pytest.fixture
def folder(tmp_path, monkeypatch, hardware):
    """An archive of two results that were received an hour ago."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGECLAVE_ENDORSEMENTS", raising=False)
    (tmp_path / "root.pem").write_text(hardware.root_pem)
    (tmp_path / "policy.toml").write_text(POLICY.format(platform=hardware.ppid.hex()))
    new_key(tmp_path / "keys", "one", datetime.fromtimestamp(NOW, UTC) - timedelta(days=1))
    for where in (tmp_path / "then", tmp_path / ".edgeclave/endorsements"):
        for each in collateral(hardware, NOW):
            store(where, each)
    world = World()
    instance = SgxInstance(world, hardware=hardware)
    take(tmp_path, world, [*instance.begin(), instance.result(1), instance.result(2)])
    return tmp_path


def take(folder, world, events):
    policy, known = load_policy(folder / "policy.toml"), Endorsements(folders=[folder / "then"])
    signer = load_keyring(folder / "keys", ISSUER).signer(NOW - HOUR)
    archive = Archive(folder / "archive", policy, embed_policy(folder / "policy.toml"), known, signer)
    heads = HeadStore(folder / "reader")
    try:
        reader = Reader(
            policy, world.recipient_key, heads, clock=lambda: NOW - HOUR, endorsements=known, archive=archive
        )
        reader.process_batch(events)
    finally:
        heads.close()


def records(folder):
    return sorted((folder / "archive/results").glob("*/*.json"))


def stamped(folder, authority):
    """As the command does it, without a network."""
    archive = folder / "archive"
    listed = list_files(archive, unlisted(archive))
    return timestamps.store_timestamp(archive, listed, authority.answer(authority.query(listed)))


def verify(folder, capsys, *options):
    capsys.readouterr()
    code = run(["verify", str(records(folder)[0]), *options, "--json"])
    report = json.loads(capsys.readouterr().out)
    (check,) = [check for check in report["checks"] if check["point"] == "time"]
    return code, check["verdict"], check.get("code"), report["at"]


class TestProvable:
    def test_from_when_the_authority_saw_it(self, folder, authority, capsys):
        stamped(folder, authority)
        code, verdict, problem, at = verify(folder, capsys, "--timestamp-ca", str(authority.root))
        assert (code, verdict, problem) == (0, "passed", None)
        assert NOW <= at <= time.time() + 4
        run(["verify", str(records(folder)[0]), "--timestamp-ca", str(authority.root)])
        said = capsys.readouterr().out
        assert "provable at T: it existed at" in said
        assert "CN=TEST timestamp root" in said

    def test_at_every_later_time(self, folder, authority, capsys):
        stamped(folder, authority)
        options = ("--timestamp-ca", str(authority.root), "--at", str(NOW + 86400))
        assert verify(folder, capsys, *options) == (0, "passed", None, NOW + 86400)

    def test_not_at_an_earlier_one(self, folder, authority, capsys):
        stamped(folder, authority)
        options = ("--timestamp-ca", str(authority.root), "--at", str(NOW - HOUR))
        assert verify(folder, capsys, *options)[:3] == (1, "failed", "not-provable-at")

    def test_not_without_a_timestamp(self, folder, authority, capsys):
        assert verify(folder, capsys, "--timestamp-ca", str(authority.root))[:3] == (1, "failed", "not-provable-at")

    def test_who_names_no_authority_is_not_judged(self, folder, authority, capsys):
        stamped(folder, authority)
        assert verify(folder, capsys)[:3] == (0, "not judged", "not-provable-at")

    def test_a_proof_that_cannot_be_there_is_not_left_out(self, folder, authority, capsys):
        evidence = next((folder / "archive/evidence").glob("*.cbor"))
        assert run(["verify", str(evidence), "--timestamp-ca", str(authority.root)]) == 2
        assert "[does-not-apply]" in capsys.readouterr().err

    def test_anybody_can_check_it_without_us(self, folder, authority):
        answer = stamped(folder, authority)
        listed = answer.with_suffix(".sha256")
        archive = folder / "archive"
        check = ["sha256sum", "--check", "--strict", "--quiet", str(listed)]
        assert subprocess.run(check, cwd=archive, check=False).returncode == 0
        files = ["-in", str(answer), "-data", str(listed), "-CAfile", str(authority.root)]
        assert subprocess.run(["openssl", "ts", "-verify", *files], check=False, capture_output=True).returncode == 0


class TestRefused:
    def refused(self, folder, capsys, root):
        code, verdict, problem, _ = verify(folder, capsys, "--timestamp-ca", str(root))
        assert (code, verdict) == (1, "failed")
        return problem

    def test_by_an_authority_that_is_not_trusted(self, folder, foreign, authority, capsys):
        stamped(folder, foreign)
        assert self.refused(folder, capsys, authority.root) == "bad-timestamp"

    @pytest.mark.parametrize(
        ("usage", "accepted"),
        [
            ("critical,timeStamping", True),
            ("", False),
            ("timeStamping", False),
            ("critical,serverAuth", False),
            ("critical,codeSigning,emailProtection", False),
        ],
    )
    def test_by_a_key_of_the_authority_that_is_for_something_else(self, folder, authority, capsys, usage, accepted):
        archive = folder / "archive"
        listed = list_files(archive, unlisted(archive))
        authority.issue("other", usage)
        timestamps.store_timestamp(archive, listed, authority.answer_by("other", authority.query(listed)))
        if accepted:
            assert verify(folder, capsys, "--timestamp-ca", str(authority.root))[0] == 0
        else:
            assert self.refused(folder, capsys, authority.root) == "bad-timestamp"

    @pytest.mark.parametrize("name", ["record", "list", "answer"])
    def test_after_a_change(self, folder, authority, capsys, name):
        answer = stamped(folder, authority)
        path = {"record": records(folder)[0], "list": answer.with_suffix(".sha256"), "answer": answer}[name]
        data = path.read_bytes()
        changed = data.replace(b'"received_at":', b'"received_at":1') if name == "record" else data[:-1] + b"x"
        path.write_bytes(changed)
        expected = "not-provable-at" if name == "list" else "bad-timestamp"
        assert self.refused(folder, capsys, authority.root) == expected

    def test_of_another_list(self, folder, authority, capsys):
        answer = stamped(folder, authority)
        answer.write_bytes(authority.answer(authority.query(b"other")))
        assert self.refused(folder, capsys, authority.root) == "bad-timestamp"

    def test_too_large(self, folder, authority, capsys):
        stamped(folder, authority).write_bytes(bytes(timestamps.MAX_TOKEN_BYTES + 1))
        assert self.refused(folder, capsys, authority.root) == "bad-timestamp"

    def test_one_good_one_is_enough(self, folder, authority, foreign, capsys):
        stamped(folder, foreign)
        archive = folder / "archive"
        listed = list_files(archive, [path.relative_to(archive).as_posix() for path in records(folder)])
        timestamps.store_timestamp(archive, listed, authority.answer(authority.query(listed)))
        assert verify(folder, capsys, "--timestamp-ca", str(authority.root))[:2] == (0, "passed")


LISTED = b"listed"


@pytest.fixture(scope="module")
def good(authority):
    return authority.answer(authority.query(LISTED))


@pytest.fixture(scope="module")
def authorities(authority):
    return Authorities.from_pem(authority.root)


class TestAnswers:
    def test_the_latest_time_that_the_accuracy_allows(self, authorities, good):
        stamp = authorities.verify(good, LISTED)
        assert isinstance(stamp, Timestamp)
        assert NOW + 1 <= stamp.time <= time.time() + 3

    def test_every_changed_byte(self, authorities, good):
        """Of what is signed, and the signature; some bytes around it mean nothing."""
        stamp, different = authorities.verify(good, LISTED), 0
        for position in range(len(good)):
            changed = good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :]
            try:
                assert authorities.verify(changed, LISTED) == stamp, position
            except EvidenceError as refused:
                assert refused.code == "bad-timestamp"  # noqa: PT017
                different += 1
        assert different > len(good) * 0.9

    @given(st.binary(max_size=300))
    def test_junk(self, authorities, data):
        with pytest.raises(EvidenceError, match="bad-timestamp"):
            authorities.verify(data, LISTED)

    @given(st.data())
    def test_cut_off_or_longer(self, authorities, good, data):
        size = data.draw(st.integers(0, len(good) - 1))
        for changed in (good[:size], good + b"\0", good[:size] + b"\xff" * 8 + good[size:]):
            with pytest.raises(EvidenceError, match="bad-timestamp"):
                authorities.verify(changed, LISTED)

    def test_another_nonce(self, authorities, good):
        with pytest.raises(EvidenceError, match="bad-timestamp"):
            authorities.verify(good, LISTED, nonce=1)

    @pytest.mark.parametrize("text", ["", "junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
    def test_no_root(self, tmp_path, text):
        (tmp_path / "root.pem").write_text(text)
        with pytest.raises(ConfigurationError, match="no-such-file"):
            Authorities.from_pem(tmp_path / "root.pem")


class TestCommand:
    @pytest.fixture
    def service(self, tmp_path, authority):
        (tmp_path / "service").mkdir()
        with vendor_stand_in(tmp_path / "service") as stand_in:
            stand_in.documents["/"] = authority.serve
            yield stand_in

    def timestamp(self, service, root, capsys):
        capsys.readouterr()
        trust = ["--timestamp-ca", str(root), "--ca", str(service.ca)]
        code = run(["archive", "timestamp", "archive", "--authority", f"{service.url}/", *trust, "--json"])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if code == 0 else printed.err

    def test_everything_new_once(self, folder, service, authority, capsys):
        code, report = self.timestamp(service, authority.root, capsys)
        assert (code, len(report["timestamps"])) == (0, 1)
        assert report["files"] == 2 + 2 + 1 + 1  # results, evidence with its attestation result, policy, collateral
        assert self.timestamp(service, authority.root, capsys) == (0, {"files": 0, "timestamps": []})
        assert verify(folder, capsys, "--timestamp-ca", str(authority.root))[0] == 0

    def test_earlier_timestamps_are_timestamped_with_what_is_new(self, folder, service, authority, capsys):
        self.timestamp(service, authority.root, capsys)
        (folder / "archive/policies/new.toml").write_text("new")
        code, report = self.timestamp(service, authority.root, capsys)
        assert (code, report["files"]) == (0, 3)

    def test_large_archives_need_several_lists(self, folder, service, authority, capsys, monkeypatch):
        monkeypatch.setattr("edgeclave.cli.archive.MAX_LISTED", 4)
        code, report = self.timestamp(service, authority.root, capsys)
        assert (code, len(report["timestamps"])) == (0, 2)
        paths = [path.relative_to(folder / "archive").as_posix() for path in records(folder)]
        for path in paths:
            data = (folder / "archive" / path).read_bytes()
            assert find_timestamp(folder / "archive", path, data, Authorities.from_pem(authority.root))

    def test_nothing_is_stored_of_an_authority_that_is_not_trusted(self, folder, service, foreign, capsys):
        code, error = self.timestamp(service, foreign.root, capsys)
        assert code == 1
        assert "[bad-timestamp]" in error
        assert not (folder / "archive/timestamps").exists()

    def test_an_answer_to_another_question(self, folder, service, authority, capsys):
        service.documents["/"] = web.Response(body=authority.answer(authority.query(b"other")))
        code, error = self.timestamp(service, authority.root, capsys)
        assert code == 1
        assert "[bad-timestamp]" in error

    def test_an_authority_that_refuses(self, folder, service, authority, capsys):
        query = authority.folder / "sha512"
        subprocess.run(
            ["openssl", "ts", "-query", "-data", "data", "-sha512", "-out", query], cwd=authority.folder, check=True
        )
        service.documents["/"] = web.Response(body=authority.answer(query.read_bytes()))
        code, error = self.timestamp(service, authority.root, capsys)
        assert code == 1
        assert "the authority refused, with status 2" in error

    def test_not_an_archive(self, folder, service, authority, capsys):
        (folder / "empty").mkdir()
        options = ["--authority", service.url, "--timestamp-ca", str(authority.root)]
        assert run(["archive", "timestamp", "empty", *options]) == 1
        assert "[not-an-archive]" in capsys.readouterr().err
