"""Streaming anomaly detection: no settings, constant memory, one reading at a time. Start at `detector`."""
