"""`python -m edgeclave` is the `edgeclave` command."""

from edgeclave.cli.main import main

main()
