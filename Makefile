# One line a chore; the work is done by pip, CMake, pytest and the package's own commands.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MODEL ?= smollm2-135m
PROMPT ?= Write a Python function that merges two sorted lists.

SOURCES := pyproject.toml CMakeLists.txt $(shell find edge_conflayers native models -type f \
	-not -path '*/_native/*' -not -name '*.pyc')

.PHONY: demo test test-all test-offload native-test native-sanitize bench bench-kernels upstream dev docs lint clean

demo: $(VENV)/.installed  ## the main job on real input
	$(BIN)/edge-conflayers run $(MODEL) -p "$(PROMPT)" -n 128

test: $(VENV)/.installed upstream native-test  ## everything but the 1.5B model and the long forms
	$(BIN)/pytest -n auto -m "not large and not long"

# Threads spin while they wait, as OpenMP's do by default; asleep, they take four times as long.
test-all: $(VENV)/.installed upstream
	GOMP_SPINCOUNT=300000 $(BIN)/pytest -m "long or large or not large"

test-offload: $(VENV)/.installed  ## on a device that is not the CPU: a process of its own
	$(NATIVE) -B build/offload -DGGML_RPC=ON
	$(BIN)/cmake --build build/offload --target llama
	EDGE_CONFLAYERS_LIB=build/offload/lib $(BIN)/pytest --offload -1 \
		-m "not model and not large and not long" tests/test_identity.py tests/engine/session
	EDGE_CONFLAYERS_LIB=build/offload/lib $(BIN)/pytest --offload 2 \
		-m "not model and not large and not long" tests/test_identity.py

bench: $(VENV)/.installed upstream  ## PROMPTS=file.jsonl
	$(BIN)/edge-conflayers bench $(MODEL) --prompts $(PROMPTS) --methods upstream,plain,auto,conflayers \
		--limit 8 -n 128 --json bench.json

NATIVE := $(BIN)/cmake -S . -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	-DPython_EXECUTABLE=$(abspath $(BIN)/python)

native-test: $(VENV)/.installed  ## the C++ tests, which the install has built
	OMP_WAIT_POLICY=passive $(BIN)/ctest --test-dir build/package --output-on-failure

native-sanitize: $(VENV)/.installed  ## the same with the address and undefined-behaviour sanitizers
	$(NATIVE) -B build/native-sanitize -DECL_BUILD_TESTS=ON -DECL_SANITIZE=ON -DCMAKE_BUILD_TYPE=Debug
	$(BIN)/cmake --build build/native-sanitize --target native_tests
	OMP_WAIT_POLICY=passive $(BIN)/ctest --test-dir build/native-sanitize --output-on-failure

bench-kernels: $(VENV)/.installed
	build/package/lib/check_kernels --bench

upstream: build/upstream/.built  ## llama.cpp as it is, to compare with

build/upstream/.built: CMakeLists.txt native/upstream.toml native/fetch_upstream.py | $(VENV)/.installed
	$(NATIVE) -B build/upstream -DECL_UNPATCHED=ON
	$(BIN)/cmake --build build/upstream --target llama
	touch $@

$(VENV)/.installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check ".[dev]" \
		-C build-dir=build/package -C cmake.define.ECL_BUILD_TESTS=ON
	touch $@

dev:  ## an editable install; run again after a change of C++ (seconds)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet scikit-build-core ninja cmake patch-ng
	$(BIN)/python -m pip install --quiet --no-build-isolation -e ".[dev]"

docs: $(VENV)/.installed  ## the site, in build/site
	$(BIN)/python tools/command_help.py
	$(BIN)/mkdocs build

lint:
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:
	rm -rf build $(VENV)
