# A new machine needs Python >= 3.12 and make; everything else is installed into .venv.
# PYTHON=... chooses the interpreter; otherwise the first suitable one below is taken.

.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
CANDIDATES := $(or $(PYTHON),python3.12 python3.13 python3)

# The stamps carry a digest of what decides the environment, the folder included (scripts hold
# absolute paths): a fresh checkout's new time stamps rebuild nothing, a moved or changed one does.
DIGEST := $(firstword $(shell { cat pyproject.toml constraints.txt; echo "$(CURDIR)"; } | cksum))
BASE := $(VENV)/.base-$(DIGEST)
DEV := $(VENV)/.dev-$(DIGEST)

# In a recipe: sets $$python, or says what is wrong and stops.
define find_python
python=; \
for candidate in $(CANDIDATES); do \
  if $$candidate -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; \
  then python=$$candidate; break; fi; \
done; \
if [ -z "$$python" ]; then \
  echo "Treadle needs Python 3.12 or newer with its venv module; none of [$(CANDIDATES)] is that." \
       "Install it (Debian and Ubuntu: python3.12-venv) or name one: make PYTHON=/path/to/python3.12" >&2; \
  exit 1; \
fi
endef

.PHONY: help demo test check build constraints clean

help:
	@echo "make demo         install, and run a job on data that scikit-learn ships"
	@echo "make test         the whole test suite (the slow tests: $(BIN)/pytest -m slow)"
	@echo "make check        ruff, mypy and the import rules"
	@echo "make build        a wheel in dist/"
	@echo "make constraints  resolve pyproject.toml anew into constraints.txt"
	@echo "make clean        remove what these targets made; artifacts/ stays"

demo: $(BASE)
	$(BIN)/treadle run jobs/examples/breast-cancer.yaml

# Two processes at a time; they share the tests out as they get done with them.
test: $(DEV)
	$(BIN)/pytest -n 2 --dist worksteal

check: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest --quiet tests/test_imports.py

# setuptools would add what an earlier build left in build/.
build: $(BASE)
	@rm -rf build dist
	$(PIP) wheel --no-deps --wheel-dir dist .
	@rm -rf build
	@ls dist/*.whl

$(BASE):
	@$(find_python); \
	echo "Creating $(VENV) with $$python and installing the pinned packages: a minute or two."; \
	rm -rf $(VENV) && $$python -m venv $(VENV)
	@$(PIP) install -c constraints.txt -e .
	@echo "Compiling the kernels, once: half a minute."
	@$(BIN)/treadle warmup
	@touch $@

$(DEV): $(BASE)
	@echo "Adding the development tools to $(VENV)."
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

# `pip list`, not `pip freeze`: it never writes an address.
constraints:
	@$(find_python); set -e; \
	work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	pip="$$work/venv/bin/python -m pip --disable-pip-version-check"; \
	$$python -m venv "$$work/venv"; \
	$$pip install -qq -e '.[dev,bench,clusters]'; \
	$$pip list --format=freeze --exclude-editable --exclude pip > "$$work/pins"; \
	{ echo "# Exact versions of all that Treadle and its extras dev, bench and clusters need (the GPU: conda-env.yml)."; \
	  echo "# Made by 'make constraints', which resolves pyproject.toml in an empty environment."; \
	  LC_ALL=C sort -f "$$work/pins"; } > constraints.txt; \
	echo "$$(wc -l < "$$work/pins") packages pinned in constraints.txt"

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find treadle engine kernels jobs cluster tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
