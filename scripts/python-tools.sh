#!/usr/bin/env bash
#
# Provides a Python environment with the packages of python-tools.txt.
#
#   usage: python-tools.sh
#
# The last line on stdout is the folder of the environment (its Python is bin/python); everything else goes to stderr.
# It is made once per machine from PyPI, in ${XDG_CACHE_HOME:-$HOME/.cache}/relaypool/tools; changed requirements make
# a new one.

set -euo pipefail

cd "$(dirname "$0")"
readonly REQUIREMENTS=python-tools.txt
readonly CACHE="${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/relaypool/tools"
FOLDER="$CACHE/python-$(sha256sum "$REQUIREMENTS" | cut -c -12)"
readonly FOLDER MARK="$FOLDER/.complete"

say() { echo "python-tools.sh: $*" >&2; }
die() { say "error: $*"; exit 1; }

# The Python is a link to the system's: an upgrade of that may have broken it.
present() { [[ -e $MARK ]] && "$FOLDER/bin/python" -c '' 2>/dev/null; }

# can_make_environments PYTHON: Debian keeps what this needs in a package of its own.
can_make_environments() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# system_python: prints a Python that can make environments, after installing it if there is none.
system_python() {
    local candidate
    for candidate in python3 /usr/bin/python3; do
        if can_make_environments "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    if ! command -v apt-get >/dev/null || ((EUID != 0)); then
        die "there is no Python 3 with the modules venv and ensurepip (Debian: apt-get install python3-venv)"
    fi
    say "installing python3-venv"
    export DEBIAN_FRONTEND=noninteractive
    # A list that is too old names files the mirror no longer has; so one more try, after an update.
    local install=(apt-get -o DPkg::Lock::Timeout=600 install --yes --no-install-recommends python3-venv)
    "${install[@]}" >&2 || { apt-get update >&2 && "${install[@]}" >&2; }
    echo /usr/bin/python3
}

if ! present; then
    mkdir -p "$CACHE"
    # One at a time. The lock is on a file descriptor: it ends with this process, however that ends.
    exec 8>"$CACHE/python-lock"
    command -v flock >/dev/null || die "flock is missing: it is part of util-linux"
    flock --nonblock 8 || { say "waiting for another installation to end"; flock 8; }
fi
if ! present; then
    say "installing the packages of $REQUIREMENTS into $FOLDER; this happens once per machine"
    python=$(system_python)
    rm -rf "$FOLDER"
    "$python" -m venv "$FOLDER" >&2
    "$FOLDER/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --use-pep517 \
        --requirement "$REQUIREMENTS" >&2
    touch "$MARK"
fi
echo "$FOLDER"
