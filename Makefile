# make run    a demonstration: one message in by QMQP, queued, delivered to a Maildir, with its log
# make test   all tests; those that need a peer which is not installed are skipped with a reason
# make lint   ruff, and mypy --strict; make format lets ruff repair what it can
# make bench  side by side with Postfix, where that is installed (BENCH="--sessions 50 --rounds 3")
# make docs   the manual, in docs/_build/html
# make crash  200 rounds of kill -9 under load, every acknowledged message accounted for (CRASH="--rounds 20")
#
# Everything runs in a virtual environment of its own, .venv, made on first use (PYTHON=python3.12 chooses).

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMPS := .stamps
BENCH  ?=
TESTS  ?= tests
CRASH  ?= --rounds 200

.PHONY: run test lint format bench docs crash clean help
.DEFAULT_GOAL := help

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

# Optional libraries, by the extra of setup.cfg that names them. Where one cannot be installed (it wants a compiler,
# or a header file), all goes on without it, and its tests are skipped.
OPTIONAL := import configparser; \
	setup = configparser.ConfigParser(); \
	setup.read("setup.cfg"); \
	print(*sorted(set(setup["options.extras_require"]) - {"test", "docs", "dev", "plot"}))
INSTALL  := -m pip install --quiet --disable-pip-version-check

# An editable install in compat mode: twistd finds the plugin, and editing a file needs no new install.
$(STAMPS)/venv: setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) "setuptools>=65" wheel
	$(BIN)/python $(INSTALL) -e ".[test,docs,dev]" --config-settings editable_mode=compat
	@for extra in $$($(BIN)/python -c '$(OPTIONAL)'); do \
		$(BIN)/python $(INSTALL) -e ".[$$extra]" --config-settings editable_mode=compat \
			|| echo "make: goes on without the optional libraries of the extra $$extra"; \
	done
	@mkdir -p $(STAMPS)
	@touch $@

run: $(STAMPS)/venv
	$(BIN)/python -m qmqpd_tx.admin.demo

test: $(STAMPS)/venv
	$(BIN)/python -m twisted.trial $(TESTS)

lint: $(STAMPS)/venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict qmqpd_tx benchmarks

format: $(STAMPS)/venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMPS)/venv
	$(BIN)/python -m benchmarks.bench $(BENCH)

docs: $(STAMPS)/venv
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	@echo "the manual: docs/_build/html/index.html"

crash: $(STAMPS)/venv
	$(BIN)/python -m tests.crash.kill_rounds $(CRASH)

clean:
	rm -rf $(VENV) $(STAMPS) build dist docs/_build docs/intake-parameters.rst docs/parameters.rst *.egg-info _trial_temp* .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
