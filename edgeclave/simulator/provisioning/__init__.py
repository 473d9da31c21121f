"""The device provisioning service (DPS): who may register, and what a registered device becomes."""
