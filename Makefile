# `make demo` and `make test` on a fresh machine with Python 3.11 or newer: each does all the set-up it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
INSTALLED := $(VENV)/.installed
SOAK_INSTALLED := $(VENV)/.installed-soak
# No HF_HUB call in tests or the demo; timm and diffusers find their files locally or fail.
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test soak lint format bench install

demo: $(INSTALLED)
	PATH="$(BIN):$$PATH" dvc repro
	@echo
	@cat data/evaluation/report.md
	@echo
	@echo "report: $(abspath data/evaluation/report.html)"

test: $(INSTALLED)
	PATH="$(BIN):$$PATH" pytest -n 2 --dist loadfile --no-loadscope-reorder

# Kills, a lost Ray node, an object store, damage to every artifact, the report in a browser: about an hour on 2 cores. GDACLI_KILLS sets how many kills (100).
soak: $(SOAK_INSTALLED)
	PATH="$(BIN):$$PATH" pytest -s tests/soak

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	for file in $(filter-out benchmarks/select.py benchmarks/fit.py benchmarks/data_fractions.py,$(wildcard benchmarks/*.py)); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

$(SOAK_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,soak]'
	command -v chromium || command -v chromium-browser || command -v google-chrome || $(BIN)/playwright install chromium
	touch $(SOAK_INSTALLED)
