#!/bin/sh
# What VS Code takes for gdb: gdb on the enclave, with this call of the application to make. Change the call here.
exec edgeclave ta debug "$(dirname "$0")/.." --method observe --payload '{"celsius": 21.5}' -- "$@"
