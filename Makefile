# Each target is a line or two. A newcomer needs `make demo` and `make test` only.
PYTHON ?= python3.11
BIN := .venv/bin
ENGINE ?= docker
# A module's tests run in one process, the longest modules first. There is one process more than cores, because many
# tests wait. Tests that measure time run alone afterwards. Exit code 5 of pytest: PYTEST named no test of this kind.
WORKERS := -n $(shell nproc | awk '{print $$1 < 8 ? $$1 + 1 : 8}') --dist loadscope --no-loadscope-reorder

# Without bytecode each process compiles all its imports: 18 s instead of 8 s for a training.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test check bench methods story image training-image render serve clean

install: .venv/.train          ## all packages of training and serving, in .venv

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/.train: pyproject.toml constraints.txt | .venv/bin/pip
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[train,compare,demo]'
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/pip
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[train,compare,demo,dev]'
	@touch .venv/.train $@

demo: install                  ## fine-tune, prove, package and serve the BBC news classifier
	$(BIN)/bentune run recipes/bbc-news.yaml
	$(BIN)/bentune smoke bbc-news

test: .venv/.dev               ## every test, on all cores; PYTEST: further options of pytest, or the tests to run
	$(BIN)/pytest -m 'not alone' $(WORKERS) $(PYTEST) || [ $$? = 5 ]
	$(BIN)/pytest -m alone $(PYTEST) $(shell grep -rl --include='test_*.py' 'mark[.]alone' tests) || [ $$? = 5 ]

check: .venv/.dev              ## ruff, mypy, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.dev              ## docs/serving/speed.md's table: Bentune beside its peers on this machine (half an hour)
	$(BIN)/bentune run benchmarks/bbc-512.yaml
	$(BIN)/python -m benchmarks.table benchmarks/bbc-512.yaml --paragraphs --rounds 2 --seconds 5

methods: .venv/.dev            ## docs/training/methods.md's table: each method of tuning on BBC news (a quarter of an hour)
	$(BIN)/python -m benchmarks.methods recipes/bbc-news.yaml

story: .venv/.dev              ## docs/rollout/story.md: retrain, compare, roll out, and refuse bad versions (three minutes)
	$(BIN)/pytest -q -s tests/runs/test_retrain_and_roll_out.py

image: install                 ## the container image of the newest BBC news Bento, with docker, podman or buildah
	$(BIN)/bentune image bbc-news

training-image:                ## the image that runs recipes; PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL: location of torch's CPU builds
	$(ENGINE) build $(BUILD_OPTIONS) --build-arg PIP_FIND_LINKS --build-arg PIP_EXTRA_INDEX_URL --file training/Dockerfile --tag bentune/training:0.1.0 .

render:                        ## the manifests of each overlay, as `kubectl apply -k` would send them
	@for overlay in k8s/overlays/*/; do echo "# $$overlay"; kubectl kustomize "$$overlay" || exit 1; done

serve: install                 ## serve the newest BBC news Bento on port 3000
	$(BIN)/bentune serve bbc-news

clean:
	rm -rf .venv .bench runs
