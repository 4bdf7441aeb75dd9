# What can be done here. The work is in scripts/ and in the program itself.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

STEP := source scripts/steps.sh && step

.PHONY: help
help: ## Say what can be done
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Send to simulated mail providers on this machine and watch what becomes of it
	@$(STEP) build "Build relaypool" cargo build --package relaypool
	@cargo run --quiet --package relaypool -- demo

.PHONY: test
test: ## Run everything that must hold: lint, drift of generated files, all tests
	@scripts/test.sh

.PHONY: lint
lint: ## Check format, clippy, licences and versions of dependencies
	@scripts/lint.sh

.PHONY: crds
crds: ## Write crds/*.yaml and docs/reference.md from the types
	@scripts/generate.sh

.PHONY: bench
bench: ## Measure the throughput, beside Postfix (installs Debian's postfix if it is missing)
	@$(STEP) build "Build relaypool for speed" cargo build --release --package relaypool
	@cargo run --quiet --release --package relaypool -- bench throughput --vs-postfix
