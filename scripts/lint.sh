#!/usr/bin/env bash
#
# Checks the code without running it: format, clippy, and what it depends on.

# shellcheck source=scripts/steps.sh
source "$(dirname "$0")/steps.sh"

check_dependencies() {
    local tools
    tools=$(scripts/rust-tools.sh)
    # Duplicate versions, licences and sources only: the check of advisories would need their database.
    "$tools/cargo-deny" --locked check --hide-inclusion-graph licenses bans sources
}

step format "Check the format of the code" cargo fmt --all --check
step clippy "Check the code with clippy" cargo clippy --workspace --all-targets -- -D warnings
step dependencies "Check licences, versions and sources of dependencies" check_dependencies
