#!/usr/bin/env bash
#
# Writes the files that are made from the types: crds/*.yaml and docs/reference.md.
#
#   usage: generate.sh [--check]
#
# With --check it writes nothing, and fails when the files are not what the types say.
#
# Environment:
#   RELAYPOOL_BIN  a built `relaypool`; default: cargo builds one

# shellcheck source=scripts/steps.sh
source "$(dirname "$0")/steps.sh"

readonly NEW="$TARGET/generated"

relaypool() {
    if [[ -n ${RELAYPOOL_BIN:-} ]]; then
        "$RELAYPOOL_BIN" "$@"
    else
        cargo run --quiet --package relaypool -- "$@"
    fi
}

# Into a folder of its own first: a file that no kind stands for any more must go, too.
generate() {
    rm -rf "$NEW"
    mkdir -p "$NEW/crds" "$NEW/docs"
    relaypool crds --output "$NEW/crds"
    relaypool reference --output "$NEW/docs/reference.md"
}

check() {
    generate
    if ! diff --unified --recursive --new-file crds "$NEW/crds" \
        || ! diff --unified --new-file docs/reference.md "$NEW/docs/reference.md"; then
        echo "These files differ from what the types say. Run \`make crds\` and commit the result."
        return 1
    fi
}

write() {
    generate
    rm -rf crds
    mkdir -p docs
    cp -R "$NEW/crds" crds
    cp "$NEW/docs/reference.md" docs/reference.md
}

case "${1:-}" in
    --check) step generated "Compare crds and docs/reference.md with the types" check ;;
    "") step generated "Write crds/*.yaml and docs/reference.md" write ;;
    *)
        echo "usage: generate.sh [--check]" >&2
        exit 2
        ;;
esac
