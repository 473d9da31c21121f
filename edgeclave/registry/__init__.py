"""Packages of trusted applications in OCI registries (distribution-spec 1.1): pushed, and pulled by digest.

The registry is not trusted: every manifest and blob is checked against its digest and size here, and the signature is
checked by whoever uses the package. What is pushed are the parts of the package file as they are, so that a pulled
package is the same file, byte for byte.

    reference.py    how a package is named: HOST[:PORT]/REPOSITORY[:TAG][@sha256:...]
    credentials.py  what docker's config.json says about a registry
    challenge.py    WWW-Authenticate; tokens.py answers it: Basic, Bearer, Azure Container Registry
    connection.py   requests to one registry: authorization, redirects, retries, limits
    push.py, pull.py
"""

from edgeclave.registry.connection import RegistryAccess
from edgeclave.registry.credentials import Credentials, read_credentials
from edgeclave.registry.errors import RegistryError
from edgeclave.registry.limits import RegistryLimits
from edgeclave.registry.pull import pull_package
from edgeclave.registry.push import push_package
from edgeclave.registry.reference import Reference

__all__ = [
    "Credentials",
    "Reference",
    "RegistryAccess",
    "RegistryError",
    "RegistryLimits",
    "pull_package",
    "push_package",
    "read_credentials",
]
