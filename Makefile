# Three commands for people: `make demo`, `make test`, `make bench`.
# Each installs from Debian's packages what it needs and does not find.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
MANX := $(TARGET)/release/manx

# Programs that mark a package as installed: what the product needs to be built and shown, what the
# tests read back with, what the benchmarks compare with.
BUILD_NEEDS := cc:gcc
DEMO_NEEDS := $(BUILD_NEEDS) /usr/lib/cni/bandwidth:containernetworking-plugins ping:iputils-ping
TEST_NEEDS := $(DEMO_NEEDS) nft:nftables ip:iproute2 jq:jq iptables:iptables bird:bird2 sysctl:procps \
	/usr/lib/frr/bgpd:frr gobgpd:gobgpd exabgp:exabgp
BENCH_NEEDS := $(TEST_NEEDS) iperf3:iperf3

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Three nodes, pods, policy, all in namespaces of its own; then all gone
	@scripts/need $(DEMO_NEEDS)
	$(CARGO) build --release --locked -p manx
	$(MANX) lab demo $(ARGS)

.PHONY: build
build: ## The release binary
	@scripts/need $(BUILD_NEEDS)
	$(CARGO) build --release --locked -p manx

.PHONY: test
test: ## Every test there is, as root or not
	@scripts/need $(TEST_NEEDS)
	scripts/test

.PHONY: random
random: ## Random policy for ten minutes: the oracle against packets; ARGS="--seed 7" for others
	@scripts/need $(BUILD_NEEDS)
	$(CARGO) build --release --locked -p manx
	$(MANX) lab random --cases 1000000 --time 10m --hosts $(ARGS)

.PHONY: bench
bench: ## Measure, with the peers in the same run; writes bench/RESULTS.md
	@scripts/need $(BENCH_NEEDS)
	$(CARGO) build --release --locked -p manx
	bench/run $(ARGS)

.PHONY: lint
lint: ## Formatting, clippy, edges
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) xtask tidy
