# On a machine that has only Python: `make demo`, `make test`, and `make label` for the MONAI Label server.
PYTHON ?= python3
VENV ?= .venv
LABEL_VENV ?= .venv-label
RUN = $(VENV)/bin/python

.PHONY: demo test slow lint label test-label clean

demo: $(VENV)/.installed
	$(RUN) -m monai_landmark demo --out demo

test: $(VENV)/.installed-dev
	$(RUN) -m pytest -n logical --maxprocesses 4 --dist loadfile

slow: $(VENV)/.installed-dev
	$(RUN) -m pytest -m "slow or not slow"

lint: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# MONAI Label in an environment of its own, Python 3.10 or 3.11.
label: $(LABEL_VENV)/.installed
	@echo "$(LABEL_VENV)/bin/python -m monai_landmark label start --studies FILMS --model-dir MODEL"

test-label: $(LABEL_VENV)/.installed
	$(LABEL_VENV)/bin/python -m pip install -q -c constraints.txt pytest playwright  # and a Chromium of the system
	$(LABEL_VENV)/bin/python -m pytest -m "slow or not slow" tests/label

$(LABEL_VENV)/.installed: setup.cfg pyproject.toml constraints.txt constraints-label.txt
	$(PYTHON) -m venv $(LABEL_VENV)
	$(LABEL_VENV)/bin/python -m pip install -q -c constraints.txt -c constraints-label.txt -e '.[label]'
	$(LABEL_VENV)/bin/python -m pip install -q --no-deps -c constraints-label.txt monailabel
	touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(RUN) -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(RUN) -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(LABEL_VENV) demo runs
