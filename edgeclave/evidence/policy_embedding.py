"""A policy in one file that means the same elsewhere and later: keys it names and `this-release` are written out."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from edgeclave.errors import ConfigurationError
from edgeclave.evidence.kinds import KINDS
from edgeclave.evidence.policy_file import THIS_RELEASE, load_policy

_KEY_FILE = re.compile(r"""(?m)^(\s*(?:public_key|test_root)\s*=\s*)(["'])([^"'\n]+)\2""")


def embed_policy(path: Path) -> bytes:
    """The text of a policy file with the PEM files it names, and the measurement of the installed release, in it.

    Raises:
        ConfigurationError: as `load_policy`, and `bad-policy` if it is written in a way that cannot be embedded.
    """
    wanted = load_policy(path)
    text = _KEY_FILE.sub(lambda found: f'{found[1]}"""\n{_pem(path.parent / found[3])}"""', path.read_text())
    releases = {kind.this_release()["digest"] for kind in KINDS.values() if kind.this_release is not None}
    if f'"{THIS_RELEASE}"' in text and len(releases) == 1:
        (digest,) = releases
        assert isinstance(digest, bytes)
        text = text.replace(f'"{THIS_RELEASE}"', f'"{digest.hex()}"')
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "policy.toml"
        alone.write_text(text)
        try:
            same = load_policy(alone) == wanted
        except ConfigurationError:
            same = False
    if not same:
        raise ConfigurationError(
            "bad-policy",
            "the policy cannot be archived: written alone it says something else",
            where=str(path),
            advice='write each key file as `public_key = "FILE"` or `test_root = "FILE"` on a line of its own',
        )
    return text.encode()


def _pem(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            "bad-policy", "cannot read a key that the policy names", where=str(path), advice="put it there, as PEM"
        ) from error
