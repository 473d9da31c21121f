"""The workload API of the IoT Edge security daemon: one unix socket per module."""
