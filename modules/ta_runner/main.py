"""Entry point of the ta_runner module."""

from ta_runner.module import main

from edgeclave.edge.service import run

if __name__ == "__main__":
    run("ta_runner", main)
