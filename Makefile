# make demo   see the bundled model animate a portrait      make test   everything that is checked
# make train  retrain the bundled model (hours)             make help   this list
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TYPESCRIPT := 7.0.2
TSC := $(VENV)/node_modules/typescript/bin/tsc

.PHONY: help demo test check train clean

help:
	@sed -n 's/^# //p' Makefile

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]" -c constraints.txt
	@touch $@

demo: $(STAMP)
	$(BIN)/personalive animate --demo

$(TSC): $(STAMP) Makefile
	@$(BIN)/npm install --loglevel error --no-save --no-audit --no-fund --prefix $(VENV) typescript@$(TYPESCRIPT) >/dev/null || { echo "make check needs TypeScript $(TYPESCRIPT) from the npm registry, which could not be reached"; exit 1; }
	@touch $@

check: $(STAMP) $(TSC)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/node $(TSC) --project .

test: check
	@$(BIN)/python tests/support/chromium.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

train: $(STAMP)
	$(BIN)/personalive train all --preset tiny --run runs/tiny

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
