# `make test` installs what the tests need and runs all of them; the rest is for the day's work.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

.PHONY: help
help: ## Shows this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: test
test: peers ## Installs what the tests need, runs every test and counts them
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	status=0; cargo test --profile ci --locked --all-features --no-fail-fast 2>&1 | tee "$$log" || status=$$?; \
	awk '/^test result:/ { passed += $$4; failed += $$6; ignored += $$8 } \
	     END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored; exit ignored > 0 || passed == 0 }' "$$log"; \
	exit $$status

.PHONY: peers
peers: ## Installs the tests' peers (Node.js, Chromium, Valgrind, npm packages) where they are missing
	@tests/peers/install

.PHONY: fmt
fmt: ## Formats the code
	cargo fmt

.PHONY: lint
lint: ## Denies what rustfmt and clippy find
	cargo fmt --check
	cargo clippy --all-targets --all-features --locked -- -D warnings

.PHONY: doc
doc: ## Builds the documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features --locked

.PHONY: bench
bench: ## Runs the benches
	cargo bench --locked

.PHONY: bench-peers
bench-peers: ## Measures Doorward beside nginx, HAProxy, Envoy and Pingora, three quarters of an hour; writes benches/results
	@benches/peers/install
	cargo bench --locked --bench peers

.PHONY: soak
soak: ## Counts in full what the suite counts a tenth of, and measures what no test may depend on
	DOORWARD_SOAK=1 cargo test --profile ci --locked --all-features --test e2e -- load:: aws::walk --nocapture --test-threads 1
	DOORWARD_CORPUS_CASES=1000000 cargo test --profile ci --locked --all-features --test corpus -- nothing_that_the_policy --nocapture
	cargo bench --locked --bench soak
	cargo bench --locked --bench steady

.PHONY: fuzz
fuzz: ## Fuzzes each target for FUZZ_SECONDS (60); needs a nightly toolchain
	@fuzz/run

.PHONY: ci
ci: ## Does what CI does
	.ci/run
