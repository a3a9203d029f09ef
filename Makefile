# make sample     install, then upscale and score photographs with the included weights
# make demo       install, then serve the web demo on this machine
# make figures    draw figures and fill the tables of the documentation from the result files
# make test       install, then run the linter and the quick tests
# make test-all   the same with all tests

PYTHON ?= python3
VENV ?= .venv
PARALLEL ?= -n auto --maxprocesses 8 --dist worksteal

.PHONY: sample demo figures lint test test-all clean

sample: $(VENV)/.run
	$(VENV)/bin/python hrn/sample.py

demo: $(VENV)/.demo
	$(VENV)/bin/python -m hrn.demo

figures: $(VENV)/.run
	$(VENV)/bin/python tools/make_figures.py

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

test: lint
	$(VENV)/bin/python -m pytest $(PARALLEL) -m "not slow"

test-all: lint
	$(VENV)/bin/python -m pytest $(PARALLEL)

$(VENV)/.run: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "HRN needs Python 3.11 or later; use make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.demo: $(VENV)/.run pyproject.toml
	$(VENV)/bin/pip install --disable-pip-version-check -e '.[demo]'
	touch $@

$(VENV)/.test: $(VENV)/.run pyproject.toml
	$(VENV)/bin/pip install --disable-pip-version-check -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
