#!/bin/sh
# Makes a virtual environment at $1 with the first supported Python found ($PYTHON, python3, python3.12, ...),
# installing Debian's python3-venv where that is missing and we may.
set -eu

target=$1
python=
for candidate in ${PYTHON:-python3 python3.12 python3.13 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "error: Edgeclave needs Python 3.11 to 3.13; ${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>&1 || true)" >&2
    echo "  do:    install one of them, or name it: make PYTHON=/path/to/python3.12 ..." >&2
    exit 1
fi

if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    package=python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing $package ..."
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null
    else
        echo "error: $python cannot make virtual environments" >&2
        echo "  do:    install the package $package (as root: apt-get install $package)" >&2
        exit 1
    fi
fi

rm -rf "$target"
"$python" -m venv "$target"
