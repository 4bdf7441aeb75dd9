#!/usr/bin/env bash
#
# Runs everything that must hold before a change is merged: lint, drift of generated files, all tests.
#
# A bare machine needs the Rust toolchain, a C compiler and the package registries. What else the tests need is built
# once, into ${XDG_CACHE_HOME:-$HOME/.cache}/relaypool, while cargo works in the foreground.

# shellcheck source=scripts/steps.sh
source "$(dirname "$0")/steps.sh"

readonly START=$SECONDS

run_tests() {
    # All failures of a run, not only those of the first crate that has one.
    cargo test --workspace --no-fail-fast
}

# Adds up what the test programs say: "test result: ok. 12 passed; 0 failed; 1 ignored; …".
count_tests() {
    awk '/^test result: / { passed += $4; ignored += $8 }
        END { printf "%d tests passed, %d ignored\n", passed, ignored }' "$LOGS/tests.log"
}

background kubernetes "Provide kube-apiserver, etcd and kubectl" tests/provision/kubernetes.sh
background python "Provide the Python packages of the tests" scripts/python-tools.sh
background cargo-deny "Provide cargo-deny" scripts/rust-tools.sh

scripts/lint.sh
# One command for programs and tests, so that nothing is compiled twice with different features.
step build "Build the programs and the tests" cargo build --workspace --all-targets
# The programs just built are the ones that the next steps run.
export RELAYPOOL_BIN="$TARGET/debug/relaypool"
scripts/generate.sh --check

finish cargo-deny
finish python
finish kubernetes
KUBEBUILDER_ASSETS=$(tail -n 1 "$LOGS/kubernetes.out")
export KUBEBUILDER_ASSETS
step tests "Run all tests" run_tests
count_tests
echo "Everything passed in $(duration $((SECONDS - START)))."
