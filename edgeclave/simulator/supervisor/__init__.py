"""edgeAgent: runs the modules of the deployment as processes and reports how they are."""
