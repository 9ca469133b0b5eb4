# `make demo` and `make test` do all their own set-up; a second call skips what is done.
.PHONY: deploy worker demo test faults bench check lint types install clean help
.NOTPARALLEL:

help:
	@echo "make demo     set up .venv and transcribe the bundled recordings through the real flow"
	@echo "make test     set up .venv with all backends, lint, check types, run the tests in their short form"
	@echo "make faults   the long form, which make test leaves out: thirty kills, ten nights of poison, thirty over a faulty store, 3,168 damaged files twice, disks that fill, clocks that jump, runs at once, a cluster that loses workers, 200 sentences for each backend (about an hour)"
	@echo "make bench    the benchmarks that need no GPU, side by side with every peer, into benchmarks/RESULTS.md (two hours; 3 GB more to fetch)"
	@echo "make deploy   deployments and automations onto the Prefect server (deployments/README.md)"
	@echo "make worker   what runs them, in this checkout"
	@echo "make check    lint and types alone"
	@echo "make clean    remove .venv and what the tools keep"

# Base install: faster-whisper, no torch.
demo:
	@sh scripts/bootstrap.sh
	@.venv/bin/nightscribe demo

test: check
	.venv/bin/pytest -n 2 --dist loadfile

faults: install
	LONG_FORM=1 .venv/bin/pytest -rA tests/faults
	LONG_FORM=1 .venv/bin/pytest -rA -m long --ignore=tests/faults

# whisper.cpp and whisperX have an environment of their own.
bench: install
	@test -x .venv-peers/bin/python || .venv/bin/python -m venv --without-pip .venv-peers
	@.venv/bin/python -m pip --python .venv-peers/bin/python install -q -r benchmarks/peers-requirements.txt
	.venv/bin/python -m benchmarks.report

check: install lint types

deploy:
	@sh scripts/bootstrap.sh
	@.venv/bin/python scripts/deploy.py

worker:
	@sh scripts/bootstrap.sh
	@NIGHTSCRIBE_HOME="$(CURDIR)" .venv/bin/prefect worker start --pool gpu

install:
	@sh scripts/bootstrap.sh all test

lint:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types:
	.venv/bin/mypy

clean:
	rm -rf .venv .venv-peers .venv.lock .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info demo-tables
