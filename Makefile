# Two commands matter: `make demo` and `make test`. PYTHON=... chooses the interpreter.
.NOTPARALLEL:
.PHONY: help demo check test long soak conformance venv lint bench lock wheel clean docs man
.DEFAULT_GOAL := help

export PYTHON
# Six processes import the tests, and a hundred the program: compiling all of that takes 10 s of CPU each time.
unexport PYTHONDONTWRITEBYTECODE
python := .venv/bin/python

help:
	@echo 'make demo          1,000 example prompts through everything, on this machine, in two minutes'
	@echo 'make demo LIVE=1   20 prompts against the real provider (OPENAI_API_KEY or ANTHROPIC_API_KEY)'
	@echo 'make check         before each commit, in a minute: make lint, house rules, unit tests'
	@echo 'make test          before each push: every check and every test  (ARGS="-k name" for pytest)'
	@echo 'make lint          ruff, format, types and import contracts'
	@echo 'make long          the tests that take minutes: long outages, the long soak'
	@echo 'make soak          full rate and a random kill each minute     (ARGS="--minutes 20 --seed 1")'
	@echo 'make conformance   unmodified clients of the vendors against the gateway'
	@echo 'make bench         the measurements                            (BENCH="pipeline", or --markdown)'
	@echo 'make docs          docs/reference, made anew from the code'
	@echo 'make man           build/man, a man page for each command'
	@echo 'make lock          the locks of the image, after a change of dependencies'
	@echo 'make wheel         dist/headgate-*.whl'
	@echo 'make clean         removes caches and dist; .venv and .headgate stay'

demo:
	@sh deploy/venv.sh run
	@$(python) -m headgate.producer.cli.demo $(if $(LIVE),--live)

# All checks run even when one fails, so that one run shows everything. The tests come last, with their summary. They are
# compiled while mypy runs, which leaves a core idle; each of their processes would do it for itself otherwise.
check: tests := tests/test_house.py tests/unit -n 2
test: tests := -n auto
check test: venv
	@failed=; \
	$(python) -m pytest --collect-only -qq -n 0 >/dev/null 2>&1 & compiled=$$!; \
	$(MAKE) --no-print-directory lint || failed=' lint'; \
	wait $$compiled; \
	$(python) -m pytest --dist worksteal $(tests) $(ARGS) || failed="$$failed tests"; \
	if [ -n "$$failed" ]; then echo "make $@: failed:$$failed" >&2; exit 1; fi

long: venv
	@$(python) -m pytest -m long $(ARGS)

soak: venv
	@$(python) -m tests.soak $(ARGS)

conformance: venv
	@$(python) -m tests.conformance $(ARGS)

venv:
	@sh deploy/venv.sh test

lint: venv
	@failed=; \
	echo 'ruff'; $(python) -m ruff check . || failed=' ruff'; \
	echo 'format'; $(python) -m ruff format --check . || failed="$$failed format"; \
	echo 'mypy'; $(python) -m mypy || failed="$$failed mypy"; \
	echo 'import-linter'; \
	$(python) -c 'from importlinter.cli import lint_imports_command as run; run()' || failed="$$failed imports"; \
	if [ -n "$$failed" ]; then echo "make lint: failed:$$failed" >&2; exit 1; fi

bench: venv
	@$(python) -m tests.bench $(BENCH)

docs: venv
	@$(python) -m tests.docs

man: venv
	@$(python) deploy/man.py build/man

lock: venv
	@$(python) deploy/lock.py

wheel: venv
	@sh deploy/venv.sh pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf dist build .conformance .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find headgate producer workers shared migrations deploy docs tests -name __pycache__ -type d -prune -exec rm -rf {} +
