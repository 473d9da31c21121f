"""From `deployment.template.json` to the deployment manifest that an operator applies, as the official tools do it."""

from edgeclave.simulator.deployment.deployment import Deployment, generate

__all__ = ["Deployment", "generate"]
