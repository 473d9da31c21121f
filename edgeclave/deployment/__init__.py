"""Deployments as the official tools write them: templates, manifests, routes, and what a person gets wrong in them.

Whoever applies a deployment (the simulator, the service side) imports this; this imports neither.
"""

from edgeclave.deployment.check import check_deployment
from edgeclave.deployment.deployment import Deployment, generate
from edgeclave.deployment.findings import Finding

__all__ = ["Deployment", "Finding", "check_deployment", "generate"]
