"""The Event Hub-compatible endpoint: AMQP 1.0 as far as the azure-eventhub client speaks it."""
