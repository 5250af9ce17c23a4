# Each target sets up by itself what it needs: a virtual environment in .venv, filled by pip when setup.cfg changes.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --root-user-action=ignore

.PHONY: help run test check crash postgresql fuzz clients bench bench-accounts bench-observation bench-queue bench-setup clean

help:
	@echo "make run          start a relay on this machine with a demo user, delivering to a maildir"
	@echo "make test         all tests"
	@echo "make check        ruff, mypy, import-linter"
	@echo "make crash        the kill -9 proof, CRASH_ROUNDS times (100)"
	@echo "make postgresql   the whole daemon on a PostgreSQL of its own, which needs its server's programs"
	@echo "make fuzz         look for octets that break the session's rules, FUZZ_SECONDS long (300)"
	@echo "make clients      send with swaks, curl, msmtp, git, Nodemailer and smtplib; installs them (as root)"
	@echo "make bench-setup  install what make bench needs of Debian: postfix, SASL, gcc (as root)"
	@echo "make bench        smtpplus and Postfix in the same run; BENCH=\"--help\" shows the options"
	@echo "make bench-accounts   what 100,000 users with 10 senders each cost"
	@echo "make bench-observation  the relay with and without history, metrics, alerts and log"
	@echo "make bench-queue  urgent mail over long queues, a million messages, a dead destination"
	@echo "make clean        remove what these made: .venv, run, caches"

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found. On Debian: apt-get install python3 python3-venv make" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "smtpplus needs Python 3.11 or later; $(PYTHON) is `$(PYTHON) --version`. Name another one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) lacks its venv module. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "making the virtual environment .venv"
	@$(PYTHON) -m venv .venv

.venv/.running: .venv/bin/python setup.cfg pyproject.toml setup.py
	@echo "installing what smtpplus needs into .venv"
	@$(PIP) --editable .
	@touch $@

.venv/.developing: .venv/bin/python setup.cfg pyproject.toml setup.py
	@echo "installing smtpplus, its tests and its checks into .venv"
	@$(PIP) --editable '.[test,check,fuzz]'
	@touch $@ .venv/.running

run: .venv/.running
	@exec sh etc/demo.sh

# Tests that drive processes over sockets wait with bounds; on a machine that is very busy one may run out. It is tried once more, and said so.
test: .venv/.developing
	$(BIN)/python -m pytest --reruns 1 $(TESTS)

check: .venv/.developing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

crash: .venv/.developing
	CRASH_ROUNDS=$${CRASH_ROUNDS:-100} $(BIN)/python -m pytest tests/scenario/test_kill9_loses_nothing.py

.venv/.postgresql: .venv/.developing
	@echo "installing PostgreSQL's driver into .venv"
	@$(PIP) --editable '.[postgresql]'
	@touch $@

postgresql: .venv/.postgresql
	$(BIN)/python -m pytest -o python_files='scenario_*.py' $(if $(TESTS),$(TESTS),tests/postgresql)

fuzz: .venv/.developing
	@mkdir -p run/fuzz
	$(BIN)/python -m tests.fuzz.fuzz_session run/fuzz tests/fuzz/corpus -max_total_time=$${FUZZ_SECONDS:-300} -max_len=4096 -artifact_prefix=run/fuzz/

clients: .venv/.developing
	$(BIN)/python -m tests.clients.run $(CLIENTS)

bench-setup:
	@sh bench/setup.sh

bench: .venv/.running
	@{ [ -x /usr/sbin/smtp-source ] && [ -x /usr/sbin/saslpasswd2 ]; } || sh bench/setup.sh
	$(BIN)/python -m bench.run $(BENCH)

bench-observation: .venv/.running
	@command -v /usr/sbin/smtp-source >/dev/null || sh bench/setup.sh
	$(BIN)/python -m bench.observation $(BENCH)

bench-queue: .venv/.running
	@[ -x /usr/sbin/smtp-sink ] || sh bench/setup.sh
	$(BIN)/python -m bench.queue $(BENCH)

bench-accounts: .venv/.running
	$(BIN)/python -m bench.accounts $(BENCH)

clean:
	rm -rf .venv run build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache _trial_temp* .coverage htmlcov
	rm -f twisted/plugins/dropin.cache twistd.pid twistd.log
	find smtpplus tests bench twisted -name __pycache__ -type d -prune -exec rm -rf {} +
