#!/usr/bin/env bash
#
# Provides the Rust programs that the checks need, beyond the toolchain: cargo-deny.
#
#   usage: rust-tools.sh
#
# The last line on stdout is a folder with the programs; everything else goes to stderr. They are built once per
# machine from crates.io into ${XDG_CACHE_HOME:-$HOME/.cache}/relaypool/tools, in a pinned version.

set -euo pipefail

readonly NAME=cargo-deny
readonly VERSION=0.20.2
readonly CACHE="${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/relaypool/tools"
readonly FOLDER="$CACHE/$NAME-$VERSION"

say() { echo "rust-tools.sh: $*" >&2; }
die() { say "error: $*"; exit 1; }

present() { [[ -x $FOLDER/bin/$NAME ]]; }

if ! present; then
    mkdir -p "$CACHE"
    # One build at a time. The lock is on a file descriptor: it ends with this process, however that ends.
    exec 9>"$CACHE/lock"
    command -v flock >/dev/null || die "flock is missing: it is part of util-linux"
    flock --nonblock 9 || { say "waiting for another build to end"; flock 9; }
fi
if ! present; then
    say "building $NAME $VERSION into $FOLDER; this happens once per machine"
    # The project's toolchain file, not the one of the folder this was called from.
    cd "$(dirname "$0")/.."
    # A program that runs for a second per check is not worth the minutes of its release profile.
    CARGO_TARGET_DIR="$CACHE/build" \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
        CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install --locked --root "$FOLDER" --version "=$VERSION" "$NAME" >&2
    rm -rf "$CACHE/build"
fi
echo "$FOLDER/bin"
