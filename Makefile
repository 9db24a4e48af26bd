# `make demo` and `make test` need nothing but Python 3.11 or newer: they build .venv from the constraints first.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DOCS := .venv/.docs

.PHONY: demo test slow docs judges mutants lint types audit bench clean
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(BIN)/graphmeta run --out out/demo

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile

slow: $(DOCS)
	$(BIN)/python -m pytest -m slow -n auto --dist loadfile

# The site, in out/site; open out/site/index.html. A link that leads nowhere is an error.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Metrics, baselines and the RelBench export against other packages, in an environment of their own. For the few lists,
# to compile ranx takes longer than to interpret it.
judges: .venv/judges/.installed
	NUMBA_DISABLE_JIT=1 .venv/judges/bin/python -m pytest -n 0 -m judges tests/judges
	NUMBA_DISABLE_JIT=1 .venv/judges/bin/python -m benchmarks.judges

# Small changes of the code that a test should notice.
mutants: $(STAMP)
	$(BIN)/python -m tests.mutation

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright

# Known vulnerabilities of the pinned packages. Needs PyPI's data; fails if a package cannot be checked.
audit:
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet pip-audit
	.venv/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

bench: $(STAMP)
	$(BIN)/python -m benchmarks.speed

.venv/judges/.installed: constraints-judges.txt
	$(PYTHON) -m venv .venv/judges
	.venv/judges/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints-judges.txt
	touch $@

clean:
	rm -rf .venv out

# The stamp is written last, so that an interrupted or failed installation is taken up again.
$(STAMP): constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[cli,plots,serve,text,tune,test,dev]'
	touch $@

$(DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@
