"""What the desired properties of the suite's modules may say: read by the modules, and checked before a deployment."""
