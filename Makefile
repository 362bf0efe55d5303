# Each target makes the environment first, so that a fresh clone needs nothing but Python and a network.
# The first of these that is there, works and is recent enough; name another with make PYTHON=…
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 && { echo $$p; exit; }; done; echo python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A company's own certificates are in the system's store, which uv does not read unless it is told to.
export UV_SYSTEM_CERTS := true
export UV_NATIVE_TLS := true
# Where it is set, every task of every round compiles what it imports again: three times as slow.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test soak lint generated locks image bench clean

help:
	@echo "make demo   the whole loop on real digits: no cluster, no account"
	@echo "make test   tests, linters and type checker"
	@echo "make soak   the long forms of the tests: many kills, a million files"
	@echo "make lint   linters and type checker alone"
	@echo "make generated  refresh the compiled YAML and the components' pages"
	@echo "make locks  refresh the packages that the images install (UPGRADE=1: newest versions)"
	@echo "make image  build the container image (TARGET=cpu: the small one); see images/build"
	@echo "make bench  every printed figure, each with its peer measured beside it"
	@echo "make clean  remove the environment and what the demo made"

$(READY): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  "visionloop needs Python 3.11, 3.12 or 3.13, and found %d.%d: install one, or name it: make PYTHON=/path/to/python3.12" % v)'
	@echo "Making the environment in $(VENV) (about 7 GB with PyTorch; a minute or more on a slow network) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[engine,serve,demo,dev]'
	@touch $@

demo: $(READY)
	@$(BIN)/visionloop demo $(if $(DIR),--dir $(DIR)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(FRESH),--fresh)

test: $(READY) lint
	@$(BIN)/pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered

soak: $(READY)
	@$(BIN)/pytest -m soak --timeout 7200

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

generated: $(READY)
	$(BIN)/python -m visionloop.pipelines.generated

locks: $(READY)
	images/lock $(BIN)/uv $(if $(UPGRADE),--upgrade)

# Needs docker, podman or buildah, and no Python.
image:
	@images/build

bench: $(READY)
	@for name in $$(ls benchmarks/*.py | xargs -n1 basename | grep -v '^_' | sed 's/\.py$$//'); do \
	  $(BIN)/python -m benchmarks.$$name $(if $(QUICK),--quick) || exit 1; done

clean:
	rm -rf $(VENV) visionloop-demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache
