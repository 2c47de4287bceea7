# The one entry point for people and CI. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
PROFILE_DIR := target/release
# Tests make file systems on loop devices and run daemons: two at a time fit two cores.
TEST_THREADS ?= 2
DEMO_SOURCE ?= /usr/share

.PHONY: help build demo test check lint unit scenarios fuzz fuzz-target fuzz-merge torture torture-restore retention retention-month schedule-month write-early idle senders capture resume sizes bench compare memory growth boot-test rescue-test deny deb packages packages-deb dist dist-test packages-system test-system

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

packages: ## Install what the demo and the tests need (Debian)
	@deploy/packages
	@deploy/prometheus-for-tests

build: ## Build the release binaries
	$(CARGO) build --release --locked --bins

demo: packages build ## Replicate a real tree between two file systems on this host, and compare
	@DEMO_SOURCE="$(DEMO_SOURCE)" BIN_DIR="$(PROFILE_DIR)" deploy/demo

test: packages packages-deb packages-system lint unit scenarios ## Run every check and test; needs root, and 10 GiB in /var/tmp
	RELEASE=$(or $(CARGO_TARGET_DIR),target)/debug deploy/system-test

lint: ## Formatting, words and clippy
	$(CARGO) fmt --all -- --check
	deploy/check-words
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

unit: ## Tests beside the code
	$(CARGO) test --workspace --exclude sendshot-scenarios --exclude sendshot-protocol-model --exclude sendshot-fuzzing --locked --features sendshot-harness/failpoints

scenarios: ## Tests on real btrfs
	$(CARGO) build --workspace --bins --locked --features sendshot-harness/failpoints
	$(CARGO) test -p sendshot-fuzzing -p sendshot-scenarios -p sendshot-protocol-model --locked --features sendshot-harness/failpoints -- --test-threads=$(TEST_THREADS)

fuzz: packages ## Random histories through sendshots: HISTORIES=500 SEED=1 ROUNDS=6
	$(CARGO) run --locked -p sendshot-bench --bin histories -- $(or $(HISTORIES),100) $(or $(SEED),1) $(or $(ROUNDS),6)

fuzz-target: packages ## Fuzz what reads others' bytes: TARGET=stream SECONDS=3600; see CONTRIBUTING.md
	@tests/fuzz/run $(or $(TARGET),stream) $(or $(SECONDS),60)

fuzz-merge: packages ## Keep the inputs that a target's coverage needs: TARGET=stream
	@tests/fuzz/run $(or $(TARGET),stream) merge

torture: packages ## Pushes under faults of every kind: MINUTES=3 SEED=1, or CUTS=1000 KILLS_SENDER=300 LIES=100 ...
	$(CARGO) build --workspace --bins --locked --features sendshot-harness/failpoints
	target/debug/torture

torture-restore: packages ## Restores under faults of every kind, beside and in place: RESTORES=300 SEED=1
	$(CARGO) build --workspace --bins --locked --features sendshot-harness/failpoints
	RESTORES=$(or $(RESTORES),300) target/debug/torture-restore

retention: packages ## Retention against the model in Python, a year and a thief's junk: HISTORIES=10000 SEED=1
	$(CARGO) build --locked -p sendshot-retention-eval
	python3 tests/retention/model.py --self-test
	python3 tests/retention/check.py random --seed $(or $(SEED),1) --cases 20000
	python3 tests/retention/check.py year --seed $(or $(SEED),1)
	python3 tests/retention/check.py thief --seed $(or $(SEED),1) --histories $(or $(HISTORIES),10000)

retention-month: packages ## A month of hourly pushes on btrfs under a moved clock, against the model
	$(CARGO) build --workspace --bins --locked --features sendshot-harness/failpoints
	RETENTION_DAYS=$(or $(DAYS),30) $(CARGO) test -p sendshot-scenarios --locked --features sendshot-harness/failpoints -- --nocapture retention::model::hourly

schedule-month: packages ## A month of hourly runs under a moved clock, with sleep and downtime: DAYS=30
	$(CARGO) build --workspace --bins --locked --features sendshot-harness/failpoints
	SCHEDULE_DAYS=$(or $(DAYS),30) $(CARGO) test -p sendshot-scenarios --locked --features sendshot-harness/failpoints -- --nocapture schedule::each_missed

write-early: packages ## Disks that fail between early writing and the flush, and work again: ROUNDS=100
	WRITE_EARLY=$(or $(ROUNDS),100) $(CARGO) test -p sendshot-scenarios --locked --features sendshot-harness/failpoints -- --nocapture apply::writes_early

idle: packages build ## What 200 volumes on a schedule cost, unchanged, and with five that change: MINUTES=15 EVERY_MINUTES=5
	CHANGING=0 $(PROFILE_DIR)/idle
	CHANGING=5 $(PROFILE_DIR)/idle

senders: packages build ## Many senders push at once to one receiver: SENDERS=200 MIB=32; needs 14 GiB in /dev/shm
	SENDERS=$(or $(SENDERS),200) MIB=$(or $(MIB),32) $(PROFILE_DIR)/senders

capture: packages build ## Capture of a million files with 1 % changed: FILES=1000000; needs 4 GiB in /dev/shm
	FILES=$(or $(FILES),1000000) $(PROFILE_DIR)/capture

resume: packages build ## What an interruption of a push of 4 GiB costs, and checkpoints: MIB=4096; needs 14 GiB in /dev/shm
	SENDSHOT_BIN_DIR="$(PROFILE_DIR)" $(CARGO) run --locked -p sendshot-bench --bin resume -- $(or $(MIB),4096)

memory: packages build ## Peak memory of both daemons for a push of 2 GiB
	SENDSHOT_BIN_DIR="$(PROFILE_DIR)" $(CARGO) run --locked -p sendshot-bench --bin memory

bench: packages build ## Whole pushes against their peers, then streams against the kernel's: ROUNDS=5 LOADS="tree random" FIRST=2; needs 20 GiB in /dev/shm
	@deploy/packages btrbk openssh-client openssh-server
	SENDSHOT_BIN_DIR="$(PROFILE_DIR)" $(PROFILE_DIR)/peers --rounds $(or $(ROUNDS),5) --first $(or $(FIRST),9) --json target/bench/peers.json $(LOADS)
	SENDSHOT_BIN_DIR="$(PROFILE_DIR)" $(PROFILE_DIR)/bench $(or $(ROUNDS),5)

compare: packages ## Two builds in turns, streams and a push of /usr/share: OLD=dir NEW=dir ROUNDS=9
	$(CARGO) run --release -p sendshot-bench --bin compare -- "$(OLD)" "$(or $(NEW),$(PROFILE_DIR))" $(or $(ROUNDS),9)

sizes: packages ## Length of our streams against the kernel's over random histories: HISTORIES=100 SEED=1 ROUNDS=6
	$(CARGO) run --locked -p sendshot-bench --bin sizes -- $(or $(HISTORIES),100) $(or $(SEED),1) $(or $(ROUNDS),6)

growth: packages build ## Peak memory for a million files, and for a file of five million extents; needs 8 GiB in /dev/shm
	SENDSHOT_BIN_DIR="$(PROFILE_DIR)" $(CARGO) run --locked -p sendshot-bench --bin growth -- $(or $(FILES),1000000) $(or $(EXTENTS),5000000)

boot-test: packages build ## Boot a Debian with the units under real systemd, and push; needs debootstrap, systemd-nspawn, and 8 GiB in /var/tmp
	@deploy/boot-test

rescue-test: packages build ## Restore a whole machine in qemu by the commands of docs/restore.md, and boot it; needs debootstrap, qemu and 12 GiB in /var/tmp
	@deploy/rescue-test

deb: packages-deb build ## Make the Debian packages, into target/deb, checked by lintian
	deploy/make-deb

packages-deb:
	@deploy/packages debhelper dpkg-dev fakeroot lintian

dist: ## Make an archive of binaries for any Linux with a C library from Debian 11 on, into target/dist: ARCH=x86_64
	ARCH=$(or $(ARCH),x86_64) deploy/make-dist

dist-test: packages-system dist ## Try the archive in a Debian 11; needs debootstrap
	deploy/dist-test

packages-system:
	@deploy/packages btrfs-progs debootstrap iproute2 jq procps systemd-container util-linux

test-system: packages-deb packages-system build ## Two booted Debians in containers: install, pair, push, kill, reboot, upgrade, purge; needs 10 GiB in /var/tmp
	deploy/system-test

deny: ## Licences, banned crates, sources of the dependencies; needs cargo-deny (cargo install cargo-deny)
	$(CARGO) deny --all-features check licenses bans sources

include deploy/install.mk
