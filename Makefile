# Every target does its own set-up: a virtual environment with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
REFERENCE_VENV := .venv-reference
REFERENCE_STAMP := $(REFERENCE_VENV)/.installed
# torchpipe, in the version that setup.cfg has for the extra `reference`.
REFERENCE := $(shell sed -n 's/^ *\(torchpipe==.*\)/\1/p' setup.cfg)
EXTRAS := server,openvino,zoo,bench,tune,scaling,test,lint,docs
# The oldest first. The classifiers of setup.cfg say on which of them the suite has run.
PYTHONS := 3.10 3.11 3.12 3.13 3.14
comma := ,
RESOLVE = $(BIN)/uv pip compile setup.cfg --quiet $(patsubst %,--extra %,$(subst $(comma), ,$(EXTRAS)))
CONSTRAINTS_HEADER := \# The versions that the project is built and measured with; setup.cfg has the ranges.
BENCH_DIR ?= results/local
GPU_DIR ?= results/gpu
TEST_PROCESSES ?= 3
INTEROP_PACKAGES := thrift-compiler libthrift-dev libboost-dev g++ libthrift-java libslf4j-java \
	golang-go golang-thrift-dev

INSTALL_CLUSTER = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[cluster]'

# Debian's, where they are missing.
define INSTALL_PACKAGES
	@packages="$(1)"; \
	if ! command -v apt-get >/dev/null; then \
		echo "no apt-get here: install $$packages in this system's own way"; \
	else \
		root=$$(test "$$(id -u)" = 0 || echo sudo); \
		dpkg -s $$packages >/dev/null 2>&1 || { $$root apt-get update --quiet && \
			$$root apt-get install --quiet --yes --no-install-recommends $$packages; }; \
	fi
endef

.DEFAULT_GOAL := help
.PHONY: help venv bench bench-gpu peers measure test test-gpu test-interop test-parity test-cluster fuzz chaos soak regression chaos-cluster scaling-cluster serve lint audit resolve constraints docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## create the virtual environment (every target below does it by itself)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v >= (3, 10) else "thriftpipe needs Python >= 3.10, got %d.%d; name another with make PYTHON=/path/to/python" % v)'
	@echo "setting up $(VENV) (once; some minutes)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

$(REFERENCE_STAMP): setup.cfg constraints.txt
	@echo "setting up $(REFERENCE_VENV) with $(REFERENCE)"
	@$(PYTHON) -m venv --clear $(REFERENCE_VENV)
	@$(REFERENCE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt '$(REFERENCE)' torch numpy
	@echo "torchpipe compiles its core, once, with g++ (about 5 minutes on 2 cores)"
	@$(REFERENCE_VENV)/bin/python -c 'import torchpipe, omniback; omniback.create("DecodeMat")'
	@touch $@

bench: $(STAMP) ## compare the handlers on this machine (within 10 minutes on 2 cores)
	$(BIN)/thriftpipe bench --output-dir $(BENCH_DIR) $(ARGS)

bench-gpu: $(STAMP) ## everything that is measured on a GPU host, within 9 minutes
	$(BIN)/python -m loadtest gpu_session --out $(GPU_DIR) $(ARGS)

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --max-worker-restart 0 --dist loadfile \
		--no-loadscope-reorder $(PYTEST_ARGS)

test-gpu: $(STAMP) ## run the tests that need an NVIDIA GPU; elsewhere they are skipped
	$(BIN)/python -m pytest tests/gpu $(PYTEST_ARGS)

test-interop: $(STAMP) ## clients in Python, C++, Java, Node and Go; installs their packages
	$(call INSTALL_PACKAGES,$(INTEROP_PACKAGES) $$(command -v javac >/dev/null || echo default-jdk-headless) \
		$$(command -v npm >/dev/null || echo nodejs npm))
	npm install --silent --no-package-lock --prefix docs/clients/node
	THRIFTPIPE_REQUIRE_INTEROP=1 $(BIN)/python -m pytest tests/interop $(PYTEST_ARGS)

test-parity: $(STAMP) $(REFERENCE_STAMP) ## torchpipe and this project give the same on the same pipes
	THRIFTPIPE_REFERENCE_PYTHON=$(REFERENCE_VENV)/bin/python \
		$(BIN)/python -m pytest tests/parity $(PYTEST_ARGS)

test-cluster: $(STAMP) ## replicas on a real Ray cluster behind HAProxy; installs both
	$(call INSTALL_PACKAGES,haproxy)
	$(INSTALL_CLUSTER)
	THRIFTPIPE_REQUIRE_CLUSTER=1 $(BIN)/python -m pytest tests/cluster tests/cluster_runs $(PYTEST_ARGS)

peers: $(STAMP) ## this service beside seven others, in environments of their own (hours; downloads 0.5 GB)
	$(BIN)/python -m loadtest install_peers
	$(BIN)/python -m loadtest peers $(ARGS)

measure: $(STAMP) $(REFERENCE_STAMP) ## the runtime beside torchpipe: batching and overhead
	$(BIN)/python -m loadtest batching --output_dir results/local-batching \
		--reference_python $(REFERENCE_VENV)/bin/python $(ARGS)
	$(BIN)/python -m loadtest overhead --output_dir results/local-overhead \
		--reference_python $(REFERENCE_VENV)/bin/python $(ARGS)

fuzz: $(STAMP) ## a million mutated requests against a live server: make fuzz ARGS="--duration_s 60"
	$(BIN)/python -m tests.robustness fuzz $(ARGS)

chaos: $(STAMP) ## dying clients, workers and engines, bad networks, overload
	$(BIN)/python -m tests.robustness chaos $(ARGS)

soak: $(STAMP) ## a mixed load for 20 minutes: make soak ARGS="--duration_s 3600"
	$(BIN)/python -m tests.robustness soak $(ARGS)

chaos-cluster: $(STAMP) ## replicas, nodes, front ends and Ray's head die, hang and come under load
	$(call INSTALL_PACKAGES,haproxy)
	$(INSTALL_CLUSTER)
	$(BIN)/python -m tests.cluster_runs chaos $(ARGS)

scaling-cluster: $(STAMP) ## throughput by the number of replicas, each of a fixed service time
	$(INSTALL_CLUSTER)
	$(BIN)/python -m tests.cluster_runs scaling $(ARGS)

regression: $(STAMP) ## throughput beside another commit: make regression ARGS="--against main~10"
	$(BIN)/python -m tests.robustness regression $(ARGS)

serve: $(STAMP) ## serve on port 8095: make serve HANDLER=baseline ARGS="--engine openvino"
	$(BIN)/thriftpipe serve --handler $(or $(HANDLER),pipeline) $(ARGS)

docs: $(STAMP) ## the documentation as a site, in site/; every link in it is checked
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs . site
	@echo "site/docs/index.html"

lint: $(STAMP) audit ## ruff, mypy --strict, the import contracts, hadolint and the audit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint deploy/Containerfile; fi

audit: $(STAMP) ## ask for known vulnerabilities in the pinned packages
	$(BIN)/python .ci/audit.py

resolve: $(STAMP) ## the pinned versions fit together on every supported Python
	@for version in $(PYTHONS); do \
		echo "resolve: Python $$version"; \
		$(RESOLVE) --extra gpu --extra encryption --extra pillow --extra cluster --constraint constraints.txt \
			--python-version $$version --output-file /dev/null || exit 1; \
	done

constraints: $(STAMP) ## pin again what setup.cfg allows: make constraints ARGS=--upgrade
	$(RESOLVE) --extra cluster --universal --python-version $(firstword $(PYTHONS)) --no-annotate --no-header \
		--no-emit-package pip --no-emit-package setuptools --output-file constraints.txt $(ARGS)
	@printf '%s\n' '$(CONSTRAINTS_HEADER)' | cat - constraints.txt > constraints.new
	@mv constraints.new constraints.txt

clean: ## remove the virtual environment and all caches
	rm -rf $(VENV) $(REFERENCE_VENV) build docs/clients/node/node_modules docs/clients/node/gen-nodejs .peers .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
