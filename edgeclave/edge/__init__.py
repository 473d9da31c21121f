"""What every module on the device shares: the hub connection, workload certificates, durable store and outbox, the
broker-runner link, and how a module runs."""
