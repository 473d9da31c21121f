"""What a template deploys: a whole deployment, or a layer above one.

A layer gives no module its whole of $edgeAgent or $edgeHub, only paths below `properties.desired`:
`"$edgeAgent": {"properties.desired.modules.extra": {...}}`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeclave.cloud.deployment.layer import generate_layer
from edgeclave.deployment.deployment import generate
from edgeclave.deployment.variables import expand
from edgeclave.errors import ConfigurationError

Content = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Template:
    """`content` is the manifest's `modulesContent`; `notes` are sentences about what is legal but surely not meant."""

    content: Content
    notes: tuple[str, ...]


def read_template(path: Path, *, layered: bool) -> Template:
    """A template with its variables and images in place.

    Raises:
        ConfigurationError: what is wrong in it and where; `undefined-variable`: on this machine a note, but not for
            devices elsewhere.
    """
    notes: tuple[str, ...] = ()
    if layered:
        content = generate_layer(path)
    else:
        deployment = generate(path)
        content, notes = deployment.manifest["modulesContent"], deployment.notes
    _, undefined = expand(json.dumps(content), {})
    if undefined:
        raise ConfigurationError(
            "undefined-variable",
            f"${undefined[0]} is not defined in .env beside the template or in the environment",
            where=str(path),
            advice=f"define {', '.join(undefined)}",
        )
    return Template(content, tuple(note for note in notes if not note.startswith("$")))
