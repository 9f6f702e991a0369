# `make demo` and `make test` need Python 3.11 or later, git and make; the rest they set up in .venv.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for python in python3 python python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
LOCAL := build/local
DEMO := build/demo
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help venv demo serve test faults soak bench matrix docs messages lint format

help:
	@echo "make demo     a shop's workflows in action: failures, killed workers, a retry, an approval (under a minute)"
	@echo "make serve    the shop's admin and a worker on this machine, with sample data"
	@echo "make test     all tests, on every database that can be reached; ARGS=\"-k retry\" goes to pytest,"
	@echo "              JOBS=1 tests one database after the other and shows the output at once;"
	@echo "              ALL=1 tests on every database what none of them can change, too, and with more values"
	@echo "make matrix   the tests with every supported Python and Django that is found here, on SQLite (25 minutes;"
	@echo "              CORNERS=1: only the newest Python, with the oldest and the newest Django, without the pages of the docs)"
	@echo "make docs     the documentation, in docs/_build/html; a warning is an error"
	@echo "make messages collect the messages that can be translated"
	@echo "make faults   the long tests of what can go wrong, and their figures in docs/reliability.md (20 minutes;"
	@echo "              FAULTS_SEED=n repeats the random choices of an earlier run)"
	@echo "make soak     memory, connections and threads under a steady load for ten minutes (or SOAK_MINUTES=n)"
	@echo "make bench    what a step costs, beside the alternatives (35 minutes; ARGS=--quick about 5)"
	@echo "make lint     check style and formatting"
	@echo "make format   fix style and formatting"
	@echo "make venv     only set up $(VENV)"

venv: $(VENV)/ready-to-test

demo: $(VENV)/ready
	@rm -rf $(DEMO) && mkdir -p $(DEMO)
	@DATABASE=sqlite DATABASE_NAME="$(CURDIR)/$(DEMO)/shop.sqlite3" EMAIL_FILE_PATH="$(CURDIR)/$(DEMO)/mail" \
		$(BIN)/python manage.py demo --logs $(DEMO)

serve: $(VENV)/ready
	@mkdir -p $(LOCAL)
	@DEBUG=1 DATABASE=sqlite DATABASE_NAME="$(CURDIR)/$(LOCAL)/shop.sqlite3" EMAIL_FILE_PATH="$(CURDIR)/$(LOCAL)/mail" \
		$(BIN)/python manage.py serve

test: $(VENV)/ready-to-test
	@$(BIN)/python -m tests.run $(ARGS)

matrix: $(VENV)/ready-for-matrix
	@$(BIN)/python -m tests.matrix $(ARGS)

docs: $(VENV)/ready-for-docs
	@$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Needs gettext.
messages: $(VENV)/ready
	@cd django_steps && ../$(BIN)/python -m django makemessages --all --no-location --no-wrap
	@cd django_steps && ../$(BIN)/python -m django compilemessages

faults: $(VENV)/ready-to-test
	@JOBS=1 $(BIN)/python -m tests.run -m faults --timeout 0 tests/faults $(ARGS)
	@$(BIN)/python -m tests.faults.report

soak: $(VENV)/ready-to-test
	@$(BIN)/python -m tests.run -m soak --timeout 0 tests/faults $(ARGS)
	@$(BIN)/python -m tests.faults.report

bench: $(VENV)/ready-to-test
	@$(BIN)/python -m benchmarks $(ARGS)

lint: $(VENV)/ready-to-test
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/ready-to-test
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed, and none was found. Name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/ready: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing what the demo needs"
	@$(PIP) install --editable ".[demo]"
	@touch $@

# mysqlclient is built from source, which needs a C compiler and MariaDB's or MySQL's headers.
$(VENV)/ready-to-test: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing what the tests need"
	@$(PIP) install --editable ".[test,typing,lint]"
	@$(PIP) install --editable ".[mysql]" >$(VENV)/mysqlclient.log 2>&1 || \
		echo "mysqlclient can't be built here (see $(VENV)/mysqlclient.log), so there are no tests on MariaDB/MySQL"
	@touch $@ $(VENV)/ready

$(VENV)/ready-for-matrix: setup.cfg pyproject.toml | $(BIN)/python
	@$(PIP) install --editable ".[matrix]"
	@touch $@

$(VENV)/ready-for-docs: setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing what the documentation needs"
	@$(PIP) install --editable ".[docs,postgresql]"
	@touch $@
