"""docs/formats.md names every number, media type and code that the program uses."""

import re
from pathlib import Path

import pytest

from edgeclave.evidence import collection, eat, emulator, endorsements
from edgeclave.evidence.kinds import KINDS as KINDS_OF_EVIDENCE
from edgeclave.results import beacon, recipients, records, sealed
from edgeclave.results.verdicts import codes
from edgeclave.ta import signature

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "formats.md").read_text()
KINDS = [
    eat.EAT,
    emulator.QUOTE,
    recipients.RECIPIENTS,
    beacon.BEACON,
    records.OPEN,
    records.CLOSE,
    sealed.RESULT,
    signature.PACKAGE_SIGNATURE,
]
FIELDS = sealed.ResultHeader.__struct_encode_fields__


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.media_type)
def test_media_types_and_contexts(kind):
    assert f"`{kind.media_type}` | `{kind.context}`" in PAGE


@pytest.mark.parametrize("code", codes())
def test_verdicts(code):
    assert f"| `{code}` | {codes()[code].value} |" in PAGE


@pytest.mark.parametrize("name", [*FIELDS, "content"])
def test_fields_of_the_result_header(name):
    assert f'"{name}":' in PAGE


def test_numbers_and_names():
    for number in (sealed.RESULT_HEADER, eat.CHANNEL_KEY, eat.TRUSTED_APP, eat.EPOCH, eat.STORAGE_LEVEL):
        assert f"| {number} |" in PAGE
    for number in (eat.RECIPIENTS, eat.HOST_TIME):
        assert f"| {number} |" in PAGE
    assert eat.PROFILE in PAGE
    assert collection.MEDIA_TYPE in PAGE
    assert endorsements.MEDIA_TYPE in PAGE
    assert not {kind.media_type for kind in KINDS_OF_EVIDENCE.values() if kind.media_type not in PAGE}


def test_reasons_of_the_verifier():
    sources = (ROOT / "edgeclave" / "evidence").glob("*.py")
    found = {
        code for path in sources for code in re.findall(r'(?:_refused|EvidenceError)\(\s*"([a-z-]+)"', path.read_text())
    }
    assert len(found) > 20
    assert not {code for code in found if f"`{code}`" not in PAGE}


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
