# The two commands: `make demo` shows Isthmus, `make test` tests it. Nothing is installed outside .venv.
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := device edge_server proto models emulation cli

.PHONY: demo test test-oldest test-pythons test-container test-arm64 check docs proto clean

demo: .venv/demo
	@$(BIN)/isthmus demo

# In so many processes; one room, in one process: .venv/bin/pytest tests/device
WORKERS ?= 2
test: .venv/dev
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal $(PYTEST)

# The oldest of every package, on tflite-runtime: what 32-bit and older systems have.
OLDEST := tests/device/test_executor.py tests/device/test_session.py tests/device/test_session_events.py \
  tests/device/test_agent_live.py tests/device/output \
  tests/edge_server/test_serve_live.py tests/models/test_bundle.py tests/proto/test_codec.py \
  tests/proto/test_wire.py tests/proto/test_record.py tests/cli/test_demo_live.py
test-oldest: .venv/oldest
	.venv/oldest/bin/python -m pytest -q -p no:cacheprovider $(OLDEST)

# The wheel, in a clean environment of each of these: make test-pythons PYTHONS='python3.10 /opt/python3.13/bin/python3'
PYTHONS ?= python3.10 python3.11 python3.12 python3.13
test-pythons: .venv/dev
	ISTHMUS_PYTHONS='$(PYTHONS)' ISTHMUS_WHEEL='$(ISTHMUS_WHEEL)' $(BIN)/python -m pytest -q -p no:cacheprovider tests/packaging/test_pythons_live.py

# What the container files build, run as a container runs it, and an arm64 system under qemu: both as root on Debian 12, by hand.
ROOTS ?= build
test-container: .venv/dev
	mkdir -p $(ROOTS)/containers
	ISTHMUS_CONTAINERS=$(abspath $(ROOTS))/containers $(BIN)/python -m pytest -q -p no:cacheprovider tests/packaging/test_container_live.py
test-arm64: .venv/dev
	sh tests/packaging/arm64.sh $(abspath $(ROOTS))/arm64
	ISTHMUS_ARM64=$(abspath $(ROOTS))/arm64 $(BIN)/python -m pytest -q -p no:cacheprovider tests/packaging/test_arm64_live.py

.venv/oldest: .venv/pyvenv.cfg pyproject.toml tests/oldest.txt
	@$(PYTHON) -m venv $@
	@$@/bin/python -m pip install --quiet --disable-pip-version-check -r tests/oldest.txt >&2
	@$@/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e . >&2
	@touch $@

check: .venv/dev .venv/proto
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && $(call generate,$$scratch) && \
	for f in edge_pb2.py edge_pb2.pyi edge_pb2_grpc.py inference_pb2.py inference_pb2.pyi inference_pb2_grpc.py; do \
	  cmp "$$scratch/isthmus/proto/$$f" "proto/isthmus/proto/$$f" || { echo "proto: $$f is not what its .proto generates; run 'make proto'"; exit 1; }; \
	done

# The site of the documentation, with reference from the code, in build/site; a warning is a failure.
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml

proto: .venv/proto
	$(call generate,proto)

# Made by the oldest grpcio-tools we support: newer ones write code that refuses protobuf 5.
define generate
.venv/proto/bin/python -m grpc_tools.protoc -Iproto --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) proto/isthmus/proto/edge.proto proto/isthmus/proto/inference.proto
endef

# Progress goes to standard error, so that the demo's last line of standard output is its summary.
.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info < (3, 14) or sys.exit("python3 is %d.%d; Isthmus needs 3.10 to 3.13: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	@$(PYTHON) -m venv .venv

.venv/demo: .venv/pyvenv.cfg pyproject.toml
	@echo "Installing Isthmus into .venv (about a minute) ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[server,emulation]' >&2
	@touch $@

.venv/dev: .venv/pyvenv.cfg pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' >&2
	@touch $@ .venv/demo .venv/docs

.venv/docs: .venv/pyvenv.cfg pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]' >&2
	@touch $@

.venv/proto: .venv/pyvenv.cfg
	@$(PYTHON) -m venv $@
	@$@/bin/python -m pip install --quiet --disable-pip-version-check 'grpcio-tools==1.66.2' 'setuptools<80' >&2

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
