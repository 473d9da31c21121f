#!/bin/sh
# As root on Debian, installs the system packages that the tests need. Elsewhere the tests say at the end what they miss.
set -eu

[ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] && command -v apt-get >/dev/null || exit 0
missing=
for package in $(sed 's/#.*//' "$(dirname "$0")/test-packages.txt"); do
    [ "$package" != npm ] || ! command -v npm >/dev/null || continue  # Debian's conflicts with that of other sources
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "Installing the system packages that the tests need:$missing ..."
apt-get update -qq
# shellcheck disable=SC2086  # a list of names
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
