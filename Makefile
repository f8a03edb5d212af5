# Everything runs in a local environment, .venv, made on first use. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find rust python -name '*.rs' -o -name '*.toml' -o -name '*.py' -o -name '*.pyi' -o -name '*.npz') \
	Cargo.toml Cargo.lock pyproject.toml
BUILT := $(VENV)/.built

.DEFAULT_GOAL := help
.PHONY: help build demo test test-rust test-python test-arm slow torture bench lint docs wheel clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# The wheel is what users get, so it is what is tested: no editable install.
$(BUILT): $(SOURCES) | $(BIN)/python
	@echo 'Compiling the Rust core and installing the extras: some minutes on first use.'
	$(BIN)/python -m pip install --quiet '.[dev]'
	@touch $@

build: $(BUILT) ## Build the wheel and install it with its extras into .venv.

demo: $(BUILT) ## Train a physical network on real digits; report, and a picture in demo/.
	$(BIN)/pnncore demo

test: test-rust test-python ## Run all tests (under 10 minutes on 2 cores).

test-rust:
	cargo test --workspace --exclude pnncore-python --quiet

test-python: $(BUILT)
	$(BIN)/python -m pytest -m 'not slow' -q

# On Debian: dpkg --add-architecture arm64, then rustc-web, libstd-rust-web-dev:arm64, libc6-dev:arm64,
# gcc-aarch64-linux-gnu and qemu-user, and ARM_RUSTC=/usr/bin/rustc.
ARM_RUSTC ?= rustc
test-arm: ## Test the kernels on AArch64, under an emulator.
	RUSTC=$(ARM_RUSTC) PROPTEST_CASES=16 CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
		CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64 cargo test --release --quiet \
		--target aarch64-unknown-linux-gnu --target-dir target/arm --package pnncore-kernels --lib --tests

slow: $(BUILT) ## Run the long tests too.
	$(BIN)/python -m pytest -q

torture: $(BUILT) ## Kill, damage and interrupt things at full counts (a quarter of an hour).
	PNNCORE_TORTURE=1 cargo test --release --package pnncore --quiet
	PNNCORE_TORTURE=1 $(BIN)/python -m pytest -q -m 'slow or not slow' tests/test_checkpoint.py tests/test_processes.py \
		tests/test_checkpoint_metadata.py tests/test_hostile_arguments.py tests/test_reproducibility.py \
		tests/test_instrument.py tests/test_instrument_cases.py tests/test_instrument_processes.py \
		tests/test_instrument_forks.py tests/test_instrument_signals.py tests/test_instrument_texts.py \
		tests/test_runs.py

bench: $(BUILT) ## Rates of the kernels, and pnncore beside its peers (quiet machine, please).
	cargo bench --package pnncore-kernels --quiet
	$(BIN)/python benches/compare.py
	$(BIN)/python benches/resistive.py
	$(BIN)/python benches/stack.py
	$(BIN)/python benches/instrument.py
	$(BIN)/python benches/crossbar.py
	$(BIN)/python benches/low_precision.py
	$(BIN)/python benches/light.py
	$(BIN)/python benches/diffraction.py

lint: $(BUILT) ## Check formats, lints, types and stubs.
	cargo fmt --all --check
	! LC_ALL=C.UTF-8 grep -rnE '.{101}' --include=*.rs rust
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --quiet
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file= --ignore-missing-imports --disable-error-code=assignment --disable-error-code=arg-type \
		--disable-error-code=misc --disable-error-code=operator --disable-error-code=attr-defined \
		--disable-error-code=var-annotated benches/*.py
	$(BIN)/python -m mypy.stubtest pnncore._core --ignore-disjoint-bases

docs: $(BUILT) ## Build the site into site/.
	$(BIN)/python -m pip install --quiet '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: | $(BIN)/python ## Build the abi3 wheel into dist/.
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## Remove everything that was built.
	rm -rf $(VENV) target dist site demo runs
