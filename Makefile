# What people type. Everything here works from a fresh checkout.

.PHONY: help build release setup demo test lint deny unit process simulation simulate trial figures doc soak bench fmt

# Needs no RocksDB. What it breaks on purpose is a feature of this one program, and of nothing that is shipped.
SIMULATOR = --profile simulation --package starling-simulation --features simulator
# Faults that are seldom found, each from near where it was found last.
SELDOM = --begin forget-silent-forward=200541 --begin forget-rounds-over=200125 --begin reap-while-primary-lacks=200060 \
	--begin fill-from-one=200040 --begin trust-marks-after-crash=200025 --begin no-own-mark=200015 \
	--begin settings-by-arrival=200010
SEEDS ?= 1000
FIRST ?= 1

help:            ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup:           ## Install what the build needs; compile RocksDB once for this machine
	@scripts/setup

build: setup     ## Build starling-node and starling (target/debug)
	cargo build --workspace --bins

release: setup   ## Build them optimised (target/release)
	cargo build --workspace --bins --release

demo: build      ## Start five nodes, load a real data set, kill a node, and lose nothing
	scripts/demo

test:            ## Everything that CI checks
	@scripts/setup --test
	$(MAKE) lint deny unit doc simulation
	scripts/demo --small

lint:            ## Format and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --package starling-simulation --features simulator --all-targets -- -D warnings

deny:            ## Licences, bans and sources of all dependencies
	cargo deny check bans licenses sources

unit:            ## Unit, property, conformance, CLI and process tests
	cargo build --workspace --bins
	cargo nextest run --workspace

process: build   ## The process tests alone
	cargo nextest run --workspace -E 'package(starling-tests)'

simulation:      ## What CI simulates: the same seeds twice, broken builds, many seeds
	cargo test --profile simulation --package starling-core --features deliberate-faults --test deliberate_faults
	cargo nextest run --cargo-profile simulation --package starling-simulation --features simulator
	cargo run --quiet $(SIMULATOR) -- twice --seeds 20
	cargo run --quiet $(SIMULATOR) -- trial --searches 1 --first 200001 --seeds 3000 $(SELDOM)
	cargo run --quiet $(SIMULATOR) -- campaign --seeds 300

simulate:        ## Whole clusters in simulated time: SEEDS=1000 [FIRST=1 LOG=FILE], or SEED=1 [TRACE=1|all KEY=carts/k0 SMALLER=FLAGS]; [FAULT=NAME]
ifdef SEED
	@cargo run --quiet $(SIMULATOR) -- run --seed $(SEED) $(if $(TRACE),--trace=$(TRACE)) $(if $(KEY),--key $(KEY)) $(if $(FAULT),--fault $(FAULT)) $(SMALLER)
else
	@cargo run --quiet $(SIMULATOR) -- campaign --seeds $(SEEDS) --first $(FIRST) $(if $(FAULT),--fault $(FAULT)) $(if $(LOG),--log $(LOG))
endif

trial:           ## Is every fault that builds can have on purpose found? [FAULT=NAME SEEDS=1000]
	@cargo run --quiet $(SIMULATOR) -- trial --seeds $(SEEDS) $(if $(FAULT),--fault $(FAULT))

figures: build   ## What a node costs and how soon it notices, as the process tests measure it
	cargo nextest run --workspace -E 'test(/^figures::/)' --no-capture

doc:             ## Doc tests, and docs without warnings
	cargo test --doc --workspace
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

soak: build      ## The long variants of the process tests
	STARLING_SOAK=1 cargo nextest run --workspace --profile soak -E 'package(starling-tests)' --no-capture

bench: setup     ## Micro benchmarks
	cargo bench --workspace

fmt:             ## Format
	cargo fmt --all
