"""The policy file: what a person writes, and what is refused with the field's name."""

import pytest

from edgeclave.cose import generate_key
from edgeclave.errors import ConfigurationError
from edgeclave.evidence.policy import TrustedApp
from edgeclave.evidence.policy_file import load_policy
from edgeclave.evidence.reference import AnyOf, Reference
from edgeclave.evidence.runtime import runtime_digest
from edgeclave.keys import create_key, public_pem

SIGNER = "ab" * 32
GOOD = f"""
classes = ["emulated"]
freshness = "unknown"
maximum_age_seconds = 60

[[anchors]]
kind = "emulator"
class = "emulated"
public_key = "device.pub.pem"
device = "edge01"

[runtime]
emulator = ["this-release", "{"cd" * 32}"]

[[trusted_apps]]
signer_id = "{SIGNER}"
product_id = 1
minimum_security_version = 2

[[trusted_apps]]
unique_id = "{"ef" * 32}"

[recipients.minimum_version]
anomalies = 3
"""


@pytest.fixture
def write(tmp_path):
    create_key(tmp_path, "device")

    def write(text):
        path = tmp_path / "policy.toml"
        path.write_text(text)
        return path

    return write


def test_a_whole_policy(write):
    policy = load_policy(write(GOOD))
    assert policy.classes == {"emulated"}
    assert policy.freshness == "unknown"
    assert policy.maximum_age_seconds == 60
    assert policy.debug is False
    assert policy.anchors[0].device == "edge01"
    assert policy.runtime == {
        "emulator": AnyOf(Reference({"digest": runtime_digest()}), Reference({"digest": b"\xcd" * 32}))
    }
    assert policy.trusted_apps == (
        TrustedApp(b"\xab" * 32, 1, minimum_security_version=2),
        TrustedApp(unique_id=b"\xef" * 32),
    )
    assert policy.minimum_recipients == {"anomalies": 3}


def test_the_key_may_stand_in_the_file_itself(write):
    key = generate_key().public_key()
    text = GOOD.replace('"device.pub.pem"', f"'''\n{public_pem(key).decode()}'''")
    assert load_policy(write(text)).anchors[0].key == key


def test_what_is_not_said_is_the_strict_side(write):
    policy = load_policy(write(GOOD.replace('freshness = "unknown"', "").replace("maximum_age_seconds = 60", "")))
    assert policy.freshness == "beacon"
    assert policy.maximum_age_seconds == 86_400


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        pytest.param('classes = ["emulated"]', "", "classes", id="no classes"),
        pytest.param('"emulated"]', '"simulated"]', "classes", id="an unknown class"),
        pytest.param('freshness = "unknown"', 'freshness = "any"', "freshness", id="an unknown freshness"),
        pytest.param("maximum_age_seconds = 60", "maximum_age_seconds = 0", "maximum_age", id="no age at all"),
        pytest.param("maximum_age_seconds", "max_age", "max_age", id="an unknown field"),
        pytest.param('kind = "emulator"', 'kind = "abacus"', "abacus", id="an unknown kind"),
        pytest.param('\nclass = "emulated"', '\nclass = "sgx"', "sgx", id="a class an emulator cannot have"),
        pytest.param('"device.pub.pem"', '"nobody.pub.pem"', "public_key", id="a key file that is not there"),
        pytest.param('"device.pub.pem"', '"device.key.pem"', "public_key", id="a private key"),
        pytest.param('"device.pub.pem"', '"-----BEGIN nothing"', "public_key", id="no key"),
        pytest.param('"this-release", ', '"latest", ', "runtime", id="an unknown reference value"),
        pytest.param("emulator = [", "sgx = [", "runtime", id="no reference value for the anchor"),
        pytest.param('emulator = ["this-release", ', "emulator = []#", "runtime", id="empty reference values"),
        pytest.param("product_id = 1", "", "trusted_apps", id="a signer without product"),
        pytest.param("product_id = 1", "product_id = 70000", "product_id", id="too large a product"),
        pytest.param("unique_id", "product_id = 1\nunique_id", "trusted_apps", id="both ways at once"),
        pytest.param(SIGNER, SIGNER.upper(), "signer_id", id="upper case hex"),
        pytest.param(SIGNER, SIGNER[2:], "signer_id", id="a short signer"),
        pytest.param("anomalies = 3", "anomalies = -1", "minimum_version", id="a negative version"),
        pytest.param("classes =", "classes", "", id="not TOML"),
        pytest.param("product_id = 1", f"product_id = {'9' * 5000}", "digits", id="a number without end"),
        pytest.param("product_id = 1", f"product_id = {'[' * 20_000}", "recursion", id="nested without end"),
    ],
)
def test_a_mistake_is_named(write, old, new, named):
    assert old in GOOD
    with pytest.raises(ConfigurationError) as refused:
        load_policy(write(GOOD.replace(old, new)))
    assert refused.value.code == "bad-policy"
    assert named in str(refused.value)


def test_as_an_editor_of_windows_writes_it(write):
    assert load_policy(write("\N{BYTE ORDER MARK}" + GOOD.replace("\n", "\r\n"))) == load_policy(write(GOOD))


def test_a_policy_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="no-such-file"):
        load_policy(tmp_path / "policy.toml")


def test_a_reference_value_of_a_kind_that_cannot_be_computed(write):
    with pytest.raises(ConfigurationError, match=r"runtime\.sgx"):
        load_policy(write(GOOD.replace("[runtime]", '[runtime]\nsgx = ["this-release"]')))


def test_too_large_a_file(write):
    with pytest.raises(ConfigurationError, match="over the limit"):
        load_policy(write("#" * (300 << 10)))
