# Two commands do everything: `make demo` and `make test`. Both make their own environment.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PEERS := $(VENV)/.peers
PAGES := $(VENV)/.docs

.PHONY: demo bench evidence figures zoo hostile speed scaling online grokking robust readable resume callbacks processes \
	panels docs quick test clean

# The main job: train, fit, look, swap, forget, export. DATA=yinyang (default) or mnist.
DATA ?= yinyang
SEEDS ?= 1
COMPARE ?=
demo: $(INSTALLED)
	$(RUN)/python -m examples.demo --data $(DATA) --seeds $(SEEDS) $(if $(COMPARE),--compare)

# The README's evidence, part by part, resumable; QUICK=1 for minutes and without MNIST.
# PARTS="replacement topology" chooses parts, BENCH_SEEDS="5 6 7" other seeds than its own five.
QUICK ?=
PARTS ?=
BENCH_SEEDS ?=
bench: $(INSTALLED) $(if $(QUICK),,$(PEERS))
	$(RUN)/python -m benchmarks.bench $(if $(QUICK),--quick) $(if $(PARTS),--parts $(PARTS)) \
		$(if $(BENCH_SEEDS),--seeds $(BENCH_SEEDS))

# The bench's results into docs/results, and the tables of README.md and docs/evidence.md from them.
RESULTS ?= runs/bench/full
evidence: $(INSTALLED)
	$(RUN)/python -m benchmarks.evidence keep $(RESULTS)

# Pictures of the bench's results.
figures: $(INSTALLED)
	$(RUN)/python -m benchmarks.figures $(if $(QUICK),--quick)

# Swaps in the architectures people have: one row a family, or its reason to refuse.
zoo: $(INSTALLED)
	$(RUN)/python -m benchmarks.zoo.suite

# Swaps in networks made to break them: exact, refused or loud, and never silently different.
# FULL=1: by each way, new and run before, with three modules, resumable; WAYS="export fx",
# KINDS="identity", SHARE=0.1 and TWINS=1 (the harmless twins instead) choose a part of it.
FULL ?=
WAYS ?=
KINDS ?=
TWINS ?=
hostile: $(INSTALLED)
	$(RUN)/python $(if $(FULL),-m benchmarks.hostile.product $(if $(WAYS),--ways $(WAYS)) \
		$(if $(KINDS),--kinds $(KINDS)) $(if $(TWINS),--twins) $(if $(SHARE),--share $(SHARE)),-m benchmarks.hostile.suite)

# The speed-up of a swapped network against what its operations promise, as ratios of one run.
speed: $(INSTALLED)
	$(RUN)/python -m benchmarks.costs.speed

# A trajectory inside one layer, and its replacement (layer scaling). DATA and SEEDS as for the demo.
scaling: $(INSTALLED)
	$(RUN)/python -m benchmarks.scaling --data $(DATA) --seeds $(SEEDS)

# A network in training, watched by fitters that forget; CLOSED=1 without the autoencoder.
CLOSED ?=
online: $(INSTALLED)
	$(RUN)/python -m benchmarks.training.online $(if $(CLOSED),--closed)

# Fits killed at random moments and called again; and what their checkpoints cost.
resume: $(INSTALLED)
	$(RUN)/python -m benchmarks.durability.killed --kills 20 --folder "$$(mktemp -d)"
	$(RUN)/python -m benchmarks.durability.killed --kills 20 --processes 2 --folder "$$(mktemp -d)"
	$(RUN)/python -m benchmarks.costs.checkpointing

# Trainings with callbacks, broken off, killed and resumed; and what following the spectrum costs.
callbacks: $(INSTALLED)
	$(RUN)/python -m tests.integrations.trainings "$$(mktemp -d)" --steps 200
	$(RUN)/python -m benchmarks.costs.callbacks

# A network that generalises long after it knows its training data: does its spectrum tell first?
grokking: $(INSTALLED)
	$(RUN)/python -m benchmarks.training.grokking

# Modes followed, grid, radius and distances: of trusted modes beside all, of networks beside draws.
readable: $(INSTALLED)
	$(RUN)/python -m benchmarks.training.readable

# The autoencoder on many networks and with many draws: what it loses in the mean and at worst.
NETWORKS ?= 20
GENERATORS ?= 4
robust: $(INSTALLED)
	$(RUN)/python -m benchmarks.robust --networks $(NETWORKS) --generators $(GENERATORS)

# Two processes beside one: the time of closed forms, and what the autoencoder loses.
processes: $(INSTALLED)
	$(RUN)/python -m benchmarks.costs.processes --networks 5

# What the Koopman tab and a report of 1000 steps cost who looks: first paint, slider moves, bytes. Needs Chromium.
panels: $(INSTALLED)
	$(RUN)/python -m benchmarks.costs.panels

# The pages, in docs/_build/html, made afresh with the gallery's scripts run. Every warning is an error,
# and so is a link within the pages that leads nowhere.
docs: $(PAGES)
	rm -rf docs/_build docs/gallery
	OMP_NUM_THREADS=1 $(RUN)/sphinx-build -W -n --keep-going --quiet -b html docs docs/_build/html
	$(RUN)/python docs/dead_links.py docs/_build/html

# The whole check: format, lint, types, tests, these in WORKERS processes of one thread each.
WORKERS ?= 2
test: $(INSTALLED)
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder \
		--max-worker-restart 0

# A minute's look while you work: format, lint, and the tests of each room that say most in a few seconds.
# What is left out is printed.
quick: $(INSTALLED)
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest --quick --quiet --numprocesses $(WORKERS) --dist loadfile

$(INSTALLED): pyproject.toml setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

# The peers that the bench's costs are measured beside.
$(PEERS): $(INSTALLED)
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

# What the pages are built with, and what the gallery's scripts need.
$(PAGES): $(INSTALLED)
	$(RUN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) runs build docs/_build docs/gallery *.egg-info
