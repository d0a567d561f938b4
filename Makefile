# `make test` is exactly what CI runs; `make demo` compiles and runs a model on this machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

NATIVE_FILES = $(shell find kernels runtime -type f \
	\( -name '*.cuh' -o -name '*.h' -o -name '*.cpp' -o -name '*.cu' \) | sort)

.PHONY: demo test lint types conformance fuzz mutants emulator zoo gpu-check clean
.DEFAULT_GOAL := test

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/demo.py

test: lint types
	$(BIN)/python -m pytest -n 2 --durations=15

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(if $(NATIVE_FILES),$(BIN)/clang-format --dry-run -Werror $(NATIVE_FILES))

types: $(VENV)/test.stamp
	$(BIN)/python tests/typecheck.py

# All of ONNX's own tests: on the host, as CUDA through NVRTC, some in the emulator. Half an hour.
conformance: $(VENV)/test.stamp
	$(BIN)/python -m tests.conformance --report

# Random and damaged models for SECONDS; what fails is saved under out/fuzz. Same SEED, same models.
SECONDS ?= 600
SEED ?=
fuzz: $(VENV)/test.stamp
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

# Every network of the zoo, full size: docs/zoo.json and docs/ZOO.md. NETWORKS="a b" does only these.
NETWORKS ?=
zoo: $(VENV)/test.stamp
	$(BIN)/python -m ramforge.runtime.bench.zoo $(NETWORKS)

# Do the random weights of the zoo show mistakes? docs/mutation.json and docs/MUTATION.md. An hour.
mutants: $(VENV)/test.stamp
	$(BIN)/python -m tests.mutation --report

# Every kind of body, tile, odd size and precision in the emulator: half an hour. ONLY=rows for some.
ONLY ?=
emulator: $(VENV)/test.stamp
	$(BIN)/python -m tests.emulator --only "$(ONLY)"

# On the GPU machine the packages are the system's own, and only this one is installed: offline.
gpu-check:
ifneq ($(wildcard $(BIN)/python),)
	$(BIN)/python -m ramforge.runtime.gpu_check
else
	$(PYTHON) -m pip install --quiet --no-build-isolation --no-deps -e .
	$(PYTHON) -m ramforge.runtime.gpu_check
endif

clean:
	rm -rf $(VENV) .typecheck .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than pyproject.toml exactly when what that file asks for is installed.
$(VENV)/base.stamp:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade pip setuptools
	touch $@

$(VENV)/%.stamp: pyproject.toml | $(VENV)/base.stamp
	$(BIN)/python -m pip install -qq -e '.[$*]'
	touch $@
