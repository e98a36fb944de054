# Two commands do everything: `make demo` and `make test`. `make check` is the fast part of the latter.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TARGETS ?= cpu
# What torch needs and other packages do too: it stays with those.
WITH_THE_REST := filelock fsspec jinja2 markupsafe mpmath networkx numpy pillow setuptools sympy typing-extensions
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: demo test locks torch-lock check lint bench bench-gpu ablation docs-check clean setup format schema pipelines images stack stack-down stack-images

demo: setup            ## the whole pipeline on the embedded images, the ablation table, reports/index.html
	dvc repro
	@cat reports/comparison.md
	@echo "Report: reports/index.html     Runs: mlflow ui --backend-store-uri sqlite:///mlflow.db"

test: setup            ## every test
	pytest -n 3 --dist loadfile --no-loadscope-reorder

check: lint            ## lint, types and the unit tests
	pytest -n 2 --dist loadfile -m "not integration and not slow"

lint: setup            ## format, lint, types
	ruff format --check .
	ruff check .
	mypy

format: setup
	ruff format .
	ruff check --fix .

bench: setup           ## speed and memory on the CPU, and what moved; OFFICIAL=PATH, CLIP_RETRIEVAL=PATH: the peers' checkouts; PEER_PYTHON
	@test -n "$(OFFICIAL)" || echo "bench: no OFFICIAL=PATH: step and losses are NOT measured against the official CLIP-RD"
	@test -n "$(CLIP_RETRIEVAL)" || echo "bench: no CLIP_RETRIEVAL=PATH: caching is NOT measured against clip-retrieval"
	for name in $(filter-out step standing guard,$(basename $(notdir $(wildcard benchmarks/[a-z]*.py)))); do \
		python benchmarks/$$name.py || exit 1; done
	python benchmarks/zeroshot.py --arch ViT-B-32 --rounds 3 --tasks tuxpaint_photos tuxpaint_captions openclipart_captions --name zeroshot_vit_b32
	$(if $(OFFICIAL),python benchmarks/step.py --official $(OFFICIAL) --batches 6 --rounds 6)
	$(if $(OFFICIAL),python benchmarks/losses.py --official $(OFFICIAL) --name losses_official --sizes 4096 8192 --chunks 0 64 256 512 --repeats 3)
	$(if $(CLIP_RETRIEVAL),python benchmarks/cache.py --teacher ViT-B-32 --images 256 --rounds 3 --clip-retrieval $(CLIP_RETRIEVAL) --peer-python $(PEER_PYTHON) --name cache_clip_retrieval)
	python benchmarks/standing.py
	python benchmarks/guard.py

bench-gpu: setup       ## what counts on a GPU; OFFICIAL=PATH as for bench
	python benchmarks/losses.py --device cuda $(if $(OFFICIAL),--official $(OFFICIAL)) --name losses_gpu
	$(if $(OFFICIAL),python benchmarks/step.py --device cuda --official $(OFFICIAL) --name step_gpu,@echo "bench-gpu: no OFFICIAL=PATH: the step is NOT measured")
	python benchmarks/cache.py --teacher ViT-B-16 --images 2048 --batch-size 256 --name cache_gpu
	python benchmarks/guard.py

ablation: setup        ## all methods x 5 seeds (about an hour on two cores)
	dvc exp run --name ablation-$$(date +%Y%m%d-%H%M%S) -S 'ablation.methods=[baseline,clip_kd,vrd-raw,vrd-exp,xrd-raw,xrd-exp,clip_rd-raw,clip_rd-exp]' -S 'ablation.seeds=[0,1,2,3,4]'
	@cat reports/comparison.md

docs-check: setup      ## commands, paths and figures that the documents name are real
	python tools/docs_check.py

schema: setup          ## docs/params.schema.json for editors
	cliprd params --schema > docs/params.schema.json

pipelines: setup       ## pipelines/compiled/*.yaml
	for name in distill ablation retrain; do cliprd pipeline compile $$name --output pipelines/compiled/$$name.yaml || exit 1; done

images: setup          ## the images, under content-made tags; TARGETS="cpu cuda slim", TORCH_INDEX_URL=..., BUILD="--build-arg BASE_IMAGE=... --secret id=ca,src=..."
	for target in $(TARGETS); do DOCKER_BUILDKIT=1 docker build -f docker/Dockerfile --target $$target \
		--build-arg REVISION=$$(git rev-parse HEAD) --build-arg VERSION=$$(cliprd --version) \
		$(if $(TORCH_INDEX_URL),--build-arg TORCH_INDEX_URL=$(TORCH_INDEX_URL)) $(BUILD) \
		-t $$(cliprd pipeline image $$target) . || exit 1; done

LOCK = uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url
locks: setup torch-lock ## the lock files anew: of everything, and of the images
	uv pip compile -q --all-extras --generate-hashes --no-emit-index-url --python-version 3.11 pyproject.toml -o requirements.lock
	$(LOCK) pyproject.toml $(addprefix --extra ,demo kubeflow mlflow onnx report server transformers) --constraint requirements.lock \
		$(addprefix --no-emit-package ,$(shell grep -oE '^[a-z0-9-]+' requirements-torch.lock)) \
		--custom-compile-command "make locks" -o requirements-image.lock
	$(LOCK) pyproject.toml $(addprefix --extra ,kubeflow mlflow report server) --constraint requirements.lock \
		--excludes docker/without-torch.txt --custom-compile-command "make locks" -o requirements-slim.lock

torch-lock: setup      ## requirements-torch.lock, of torch on TORCH_INDEX_URL (PyTorch's own of CPU builds, for one), for `images`
	$(LOCK) -U docker/torch.in --constraint requirements.lock \
		$(if $(TORCH_INDEX_URL),--index $(TORCH_INDEX_URL) --index-strategy unsafe-best-match) \
		$(addprefix --no-emit-package ,$(WITH_THE_REST)) --custom-compile-command "make torch-lock" -o requirements-torch.lock

stack: setup           ## MLflow's server on PostgreSQL and S3, on this machine; docs/stack.md
	docker/stack.sh up

stack-down:            ## stop it; its data stay
	docker/stack.sh down

stack-images:          ## build its PostgreSQL and S3 server anew; BUILD as for `images`
	docker/stack.sh images

setup: $(STAMP)

$(STAMP): requirements.lock requirements-uv.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "cliprd needs Python 3.11; name it with: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip sync -q --python $(BIN)/python --compile-bytecode --require-hashes requirements-uv.lock requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

clean:                 ## remove what the pipeline made; keeps .venv and DVC's cache
	rm -rf work reports mlflow.db mlruns mlartifacts .pytest_cache .mypy_cache .ruff_cache .hypothesis
