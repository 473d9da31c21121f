"""Endorsements at hand, in a folder and carried by evidence: which one is used, and what is refused."""

from __future__ import annotations

import pytest

from edgeclave import cose
from edgeclave.errors import EvidenceError
from edgeclave.evidence.endorsements import (
    MAX_CARRIED,
    MEDIA_TYPE,
    Endorsement,
    Endorsements,
    EndorsementType,
    decode_carried,
    encode_carried,
    read_any,
    store,
    stored,
)


def read(data):
    """`notice SUBJECT FROM UNTIL TEXT`."""
    words = data.decode(errors="replace").split()
    if len(words) != 5 or words[0] != "notice":
        return ()
    return (Endorsement("notice", words[1], data, int(words[2]), int(words[3])),)


NOTICE = EndorsementType("notice", "notice", read)
OLD, NEW, LATER = (
    Endorsement("notice", "chip", f"notice chip {start} {end} x".encode(), start, end)
    for start, end in ((100, 200), (150, 300), (400, 500))
)


class TestWhichOneIsUsed:
    @pytest.mark.parametrize(
        ("now", "found"),
        [(100, OLD), (149, OLD), (150, NEW), (200, NEW), (300, NEW), (400, LATER), (500, LATER)],
    )
    @pytest.mark.parametrize("order", [(OLD, NEW, LATER), (LATER, NEW, OLD)], ids=["old first", "new first"])
    def test_the_one_issued_last_of_those_that_cover_the_time(self, now, found, order):
        assert Endorsements(order).find(NOTICE, "chip", now) == found

    @pytest.mark.parametrize(
        ("subject", "now", "code"),
        [
            pytest.param("other", 100, "no-endorsement", id="about another platform"),
            pytest.param("chip", 99, "endorsement-not-yet-valid", id="before all"),
            pytest.param("chip", 350, "endorsement-expired", id="between two"),
            pytest.param("chip", 501, "endorsement-expired", id="after all"),
        ],
    )
    def test_none(self, subject, now, code):
        with pytest.raises(EvidenceError) as refused:
            Endorsements((OLD, NEW, LATER)).find(NOTICE, subject, now)
        assert refused.value.code == code
        assert refused.value.advice

    def test_a_sender_cannot_choose_an_older_one_than_the_operator_has(self, tmp_path):
        store(tmp_path, NEW)
        assert Endorsements(folders=[tmp_path]).also([OLD]).find(NOTICE, "chip", 160) == NEW


class TestFolder:
    def test_what_is_stored_is_found_at_once(self, tmp_path):
        endorsements = Endorsements(folders=[tmp_path])
        with pytest.raises(EvidenceError, match="no-endorsement"):
            endorsements.find(NOTICE, "chip", 100)
        for each in (OLD, NEW, NEW):
            store(tmp_path, each)
        assert endorsements.find(NOTICE, "chip", 100) == OLD
        assert stored(tmp_path, [NOTICE]) == [NEW, OLD]

    def test_a_file_that_was_changed_is_not_used(self, tmp_path):
        store(tmp_path, OLD).write_bytes(b"notice chip 0 999 x")
        assert stored(tmp_path, [NOTICE]) == []

    @pytest.mark.parametrize("subject", ["", "..", "../chip", "a/b", "a.b", "-a", "x" * 201, "a\0"])
    def test_a_subject_is_never_a_path(self, tmp_path, subject):
        with pytest.raises(ValueError, match="not a subject"):
            Endorsements(folders=[tmp_path]).candidates(NOTICE, subject)
        with pytest.raises(ValueError, match="not a subject"):
            Endorsement("notice", subject, b"", 0, 0)

    def test_too_large_a_file_holds_nothing(self):
        assert read_any(OLD.value, [NOTICE]) == [OLD]
        assert read_any(bytes(300 << 10), [NOTICE]) == []


class TestCarried:
    def test_what_is_encoded_is_decoded(self):
        assert decode_carried(MEDIA_TYPE, encode_carried([OLD, NEW]), [NOTICE]) == [OLD, NEW]

    @pytest.mark.parametrize(
        ("media_type", "value"),
        [
            pytest.param("application/cbor", encode_carried([OLD]), id="another media type"),
            pytest.param(MEDIA_TYPE, b"", id="nothing"),
            pytest.param(MEDIA_TYPE, encode_carried([OLD]) + b"\0", id="trailing bytes"),
            pytest.param(MEDIA_TYPE, cose.dcbor({"notice": OLD.value}), id="a map"),
            pytest.param(MEDIA_TYPE, cose.dcbor([OLD.value]), id="no type"),
            pytest.param(MEDIA_TYPE, cose.dcbor([["notice", "text"]]), id="text"),
            pytest.param(MEDIA_TYPE, cose.dcbor([["notice", b"junk"]]), id="not of its type"),
            pytest.param(MEDIA_TYPE, cose.dcbor([["other", OLD.value]]), id="a type this kind has not"),
            pytest.param(MEDIA_TYPE, cose.dcbor([[1, OLD.value]]), id="a number as type"),
            pytest.param(MEDIA_TYPE, encode_carried([OLD] * (MAX_CARRIED + 1)), id="too many"),
        ],
    )
    def test_anything_else_is_refused(self, media_type, value):
        with pytest.raises(EvidenceError, match="malformed-evidence"):
            decode_carried(media_type, value, [NOTICE])
