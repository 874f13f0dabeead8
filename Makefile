# Every verb creates what it needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUST_SOURCES := $(shell find rust -path rust/fuzz -prune -o \( -name '*.rs' -o -name Cargo.toml \) -print) Cargo.toml Cargo.lock pyproject.toml
PYTHON_FILES := python tests benches models examples .ci

.DEFAULT_GOAL := help
.PHONY: help demo builds debug-build edge dist test test-litellm test-ray test-debug ci fmt lint typecheck cargo-test bench bench-sweep bench-rust fuzz sbom deny valgrind instructions soak soak-hour quality bench-gateway bench-service bench-calibration clean toolchain

help: ## List the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/built ## Calibrate, evaluate and route on the bundled synthetic sample
	$(BIN)/centroute demo

# The tests of graphs need the command with ONNX Runtime; what is released is built without.
EDGE_FEATURES := --features centroute-edge/onnxruntime

# Workers must agree on the order of sets in the names of tests. The command without Python is tested as the debug
# build that the Rust tests need anyway.
test: cargo-test $(VENV)/built ## Run all tests
	PYTHONHASHSEED=0 CENTROUTE_EDGE=$(abspath target/debug/centroute-edge) $(BIN)/pytest --numprocesses=auto

# What compiles, the release and the debug build side by side: `make --jobs=2 builds`.
builds: $(VENV)/built debug-build

# Tests, libraries and commands in one go: asked for apart, the dependencies of the tests change the features of the
# others, and these are compiled twice.
debug-build: toolchain
	cargo build --workspace --lib --bins --tests --locked --quiet $(EDGE_FEATURES)

cargo-test: debug-build
	cargo test --workspace --locked --quiet $(EDGE_FEATURES)

EDGE := target/release/centroute-edge
edge: $(EDGE) ## Build the command and the C library that route without Python
$(EDGE): $(RUST_SOURCES) | toolchain
	cargo build --release --locked --quiet --package centroute-edge
	@touch $@

# The linker that reaches older glibc versions has its own environment too.
DIST := .venv-dist
dist: toolchain ## Build wheel, sdist, command and C library with their SHA-256, install and run each
	$(PYTHON) -m venv $(DIST)
	$(DIST)/bin/pip install --quiet --disable-pip-version-check --requirement requirements-dist.lock
	PATH="$(abspath $(DIST))/bin:$$PATH" $(DIST)/bin/python .ci/dist.py

ci: lint typecheck test test-debug instructions ## What continuous integration runs

# LiteLLM brings a hundred packages, and has its own environment beside the one of development.
LITELLM := .venv-litellm
test-litellm: $(VENV)/built ## Run the tests of the LiteLLM plugin against a real proxy
	$(PYTHON) -m venv $(LITELLM)
	$(LITELLM)/bin/pip install --quiet --disable-pip-version-check 'litellm[proxy]==1.106.2'
	$(LITELLM)/bin/python -c "import pathlib, sysconfig; \
		pathlib.Path(sysconfig.get_path('purelib'), 'centroute.pth').write_text('$(abspath python)')"
	CENTROUTE_LITELLM_PYTHON=$(abspath $(LITELLM))/bin/python $(BIN)/pytest tests/test_litellm.py

# Ray brings sixty packages, and has its own environment too.
RAY := .venv-ray
test-ray: $(VENV)/built ## Run the tests of the Ray engine against real clusters of this machine
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/pip install --quiet --disable-pip-version-check 'ray[data,serve]==2.60.0' \
		numpy numba onnxruntime safetensors click rich pyarrow
	$(RAY)/bin/python -c "import pathlib, sysconfig; \
		pathlib.Path(sysconfig.get_path('purelib'), 'centroute.pth').write_text('$(abspath python)')"
	CENTROUTE_RAY_PYTHON=$(abspath $(RAY))/bin/python $(BIN)/pytest tests/test_ray.py

# The debug build lies beside the installed one: same Python files, extension with debug assertions.
DEBUG_PACKAGE := target/debug-package
test-debug: $(VENV)/built debug-build ## Run the kernel's tests against a build with debug assertions
	rm -rf $(DEBUG_PACKAGE) && mkdir -p $(DEBUG_PACKAGE)
	cp -rL python/centroute $(DEBUG_PACKAGE)/ && rm -f $(DEBUG_PACKAGE)/centroute/_kernel*.so
	cp target/debug/lib_kernel.so $(DEBUG_PACKAGE)/centroute/_kernel.abi3.so
	PYTHONPATH=$(DEBUG_PACKAGE) $(BIN)/pytest tests/test_kernel.py tests/test_artifact.py

fmt: $(VENV)/built ## Format Rust and Python
	cargo fmt --all
	$(BIN)/ruff check --fix-only --quiet $(PYTHON_FILES)
	$(BIN)/ruff format --quiet $(PYTHON_FILES)

lint: $(VENV)/built ## Lint Rust and Python
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet $(EDGE_FEATURES) -- -D warnings
	cargo clippy --package centroute-edge --lib --bins --locked --quiet -- -D warnings
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)

typecheck: $(VENV)/built ## Check types, and the extension's stub against the extension
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest centroute._kernel

BENCH := $(BIN)/pytest benches/bench_kernel.py benches/bench_embed.py --benchmark-only --benchmark-columns=median -p no:cacheprovider -W ignore
bench: $(VENV)/built $(VENV)/bench-installed ## Measure kernel and embedder beside their peers, one table
	$(BENCH)
	$(BIN)/python benches/start.py

bench-sweep: $(VENV)/built $(VENV)/bench-installed ## Measure one query over all sizes
	$(BENCH) -m sweep

bench-rust: toolchain ## Measure the kernel without Python, per instruction set
	cargo bench --locked --package centroute-core

instructions: $(VENV)/built ## Compare the kernel's instruction counts with the stored ones
	$(BIN)/python benches/instructions.py

fuzz: $(VENV)/built ## Fuzz all that reads what comes from outside, for MINUTES in all (default 10)
	$(BIN)/python tests/fuzz/run.py --minutes $(or $(MINUTES),10)

sbom: ## List what a wheel carries, as CycloneDX
	$(PYTHON) .ci/sbom.py -o centroute.cdx.json

deny: ## Check licences, bans and sources of the Rust dependencies; needs cargo-deny
	cargo deny check licenses bans sources

# Tests that walk all of Unicode or all numbers take hours there.
VALGRIND := valgrind -q --error-exitcode=9 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite
valgrind: toolchain ## Run the Rust tests under valgrind
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='$(VALGRIND)' cargo test --package centroute-core \
		--package centroute-embed --package centroute-edge --tests --locked --quiet $(EDGE_FEATURES) -- --test-threads=1 \
		--skip every_character --skip made_up_texts --skip exp_is_the_exponential --skip a_line_that_is_too_long

soak: $(VENV)/built $(VENV)/bench-installed ## Route ten million queries and watch the memory
	$(BIN)/python benches/soak.py

soak-hour: $(VENV)/built ## Route for an hour on 64 threads with reloads
	$(BIN)/python benches/soak_hour.py --json soak.json --markdown soak.md

quality: $(VENV)/built ## Measure routing quality on the outcome data in ../shared/data
	$(BIN)/python benches/quality.py

bench-gateway: $(VENV)/built ## Measure the gateway under load, with reloads
	$(BIN)/python benches/gateway.py

bench-service: $(VENV)/built ## Measure what watching costs, how long a loop is held, and batches of texts
	$(BIN)/python benches/watching.py
	$(BIN)/python benches/loop_hold.py
	$(BIN)/python benches/microbatch.py

bench-calibration: $(VENV)/built $(VENV)/bench-installed ## Measure k-means, and models added from few outcomes
	$(BIN)/python benches/bench_kmeans.py
	$(BIN)/python benches/edit.py

clean: ## Remove what was built
	rm -rf $(VENV) $(LITELLM) $(RAY) $(DIST) dist target .pytest_cache .mypy_cache .ruff_cache .hypothesis

toolchain:
	@command -v cargo >/dev/null || { echo "centroute needs Rust 1.89 or newer (cargo): see https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "centroute needs a C compiler (cc): install gcc or clang" >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "centroute needs Python 3.11 or newer ($(PYTHON))" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "centroute needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Set PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "centroute needs Python's venv module: install python3-venv" >&2; exit 1; }

$(VENV)/installed: requirements-dev.lock | toolchain
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements-dev.lock
	@touch $@

$(VENV)/bench-installed: requirements-bench.lock | $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements-bench.lock
	@touch $@

$(VENV)/built: $(VENV)/installed $(RUST_SOURCES)
	PATH="$(abspath $(BIN)):$$PATH" MATURIN_PEP517_ARGS=--locked $(BIN)/pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	@touch $@
