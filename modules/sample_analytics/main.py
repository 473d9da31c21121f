"""Entry point of the sample_analytics module."""

from sample_analytics.module import main

from edgeclave.edge.service import run

if __name__ == "__main__":
    run("sample_analytics", main)
