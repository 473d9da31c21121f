#!/bin/sh
# What VS Code takes for gdb: gdb on the enclave, with this call of the application to make. Change the call here.
here=$(dirname "$0")
exec "$here/../.venv/bin/edgeclave" ta debug "$here/../examples/anomaly_c" --method observe \
    --payload '{"series": "room", "readings": [["08:00", 21.5], ["08:05", 21.6]]}' -- "$@"
