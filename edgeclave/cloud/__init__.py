"""The relying party: reads sealed results from the hub, verifies and opens them, and keeps what it has seen."""
