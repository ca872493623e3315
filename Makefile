# `make help` lists the targets; the work is done in scripts/ and icon_classifier/.
# The newest Python that runs; scripts/environment.py then chooses the one for .venv.
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11; do $$python -c "" 2> /dev/null && echo $$python && exit; done; echo python3)
RUN = .venv/bin/python
SETUP = @$(PYTHON) -m scripts.prepare
PREPARE = $(SETUP) --tests
# A Python that has pip, where .venv is not needed.
PLAIN = $(PYTHON) -m venv build/tools/python && build/tools/python/bin/python -m
LINT = $(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(RUN) -m mypy -p icon_classifier -p scripts && .venv/bin/lint-imports
export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help
.PHONY: help app setup check test lint format notebook train release-model site lock audit deploy-check clean
.PHONY: test-exports test-hostile test-pythons test-scale soak fuzz
.PHONY: bench bench-answers bench-api bench-bulk bench-heat bench-limit bench-page bench-parity bench-site bench-train bench-visitors

### Every day
help:  ## list the targets
	@awk -F ':.*## ' '/^### / {print substr($$0, 5)} /^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2} END {print "Options: make test ARGS=\"-k smoke\""}' Makefile
app:  ## serve the page on http://localhost:8866 (or PORT=...)
	@$(PYTHON) -m scripts.serve
train:  ## train on DATA=folder of classes, or by RECIPE=name
	$(SETUP) && $(RUN) -m scripts.train --recipe "$(RECIPE)" --data "$(DATA)" $(ARGS)
notebook:  ## open train.ipynb in JupyterLab, which it installs
	$(SETUP) --extra notebook && $(RUN) -m jupyterlab train.ipynb $(ARGS)
release-model:  ## check EXPORT=path, then make it the page's model
	$(SETUP) && $(RUN) -m scripts.release_model "$(EXPORT)" $(ARGS)
site:  ## write the page as static files into OUT=build/site
	$(SETUP) && $(RUN) -m icon_classifier site "$(or $(OUT),build/site)" $(ARGS)
clean:  ## remove what was installed and built
	rm -rf .venv build export.onnx web/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
### To change the code
setup:  ## install what serving and training need, convert the model
	$(SETUP)
# One thread for each worker: otherwise the threads of torch wait for each other. Bytecode is kept
# whatever the environment says: tests start hundreds of processes. Five workers keep two cores
# busy, as many tests wait for a server or a browser.
TEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(RUN) -m pytest
check:  ## lint and the quick unit tests (a minute)
	$(PREPARE) && mkdir -p build && { ($(LINT)) > build/lint.log 2>&1 & $(TEST) -n 2 --dist worksteal -m "not slow and not hostile" tests/unit $(ARGS); tests=$$?; wait $$!; lint=$$?; cat build/lint.log; exit $$((tests | lint)); }
test:  ## all tests; installs a browser (minutes)
	$(PREPARE) && $(TEST) -n 5 --dist loadfile --no-loadscope-reorder $(ARGS)
lint:  ## ruff, ruff format, mypy --strict and import-linter
	$(PREPARE) && $(LINT)
format:  ## let ruff format the code and fix what it can
	$(PREPARE) && $(RUN) -m ruff format . && $(RUN) -m ruff check --fix .
lock:  ## write the locked files (ARGS=--upgrade: newest versions)
	@$(PLAIN) scripts.lock $(ARGS)
audit:  ## look up each locked package in the advisory database
	@$(PLAIN) scripts.tools audit -m pip_audit -s osv --no-deps --disable-pip -r requirements.txt -r requirements.lock
deploy-check:  ## build and start the page as Heroku does (minutes)
	$(PREPARE) && $(RUN) -m scripts.deploy_check
test-hostile:  ## hostile visitors and failures, all of it (minutes)
	$(PREPARE) && $(RUN) -m pytest -m "hostile or not hostile" tests/hostile tests/integration/test_kernels.py tests/integration/test_api.py $(ARGS)
test-scale:  ## several servers behind nginx, and Ray; installs both
	$(PREPARE) --extra scale --program nginx && $(RUN) -m pytest tests/scale $(ARGS)
test-pythons:  ## what serves, on this machine's other Pythons (minutes)
	$(PREPARE) && $(RUN) -m scripts.pythons $(ARGS)
test-exports:  ## convert real networks (ARGS='resnet50 vit'; minutes)
	$(PREPARE) && $(RUN) -m bench.bench_exports $(ARGS)
soak:  ## visitors for MINUTES=10; fails if any resource has grown
	$(PREPARE) && $(RUN) -m tests.hostile.soak $(or $(MINUTES),10)
fuzz:  ## fuzz the reading of photos for SECONDS=60
	$(PREPARE) && $(RUN) -m scripts.tools fuzz -m tests.hostile.fuzz $(or $(SECONDS),60)
### To measure (ARGS=--write: into docs/benchmarks.md, too)
bench:  ## what matters most, beside rivals (PHOTOS=folder; minutes)
	$(PREPARE) --program wrk && $(RUN) -m bench.bench_main $(PHOTOS) $(ARGS)
bench-answers:  ## time from a photo to its answer
	$(PREPARE) && $(RUN) -m bench.bench_answers $(ARGS)
bench-api:  ## the JSON API beside others (PHOTOS=folder); installs wrk
	$(PREPARE) --program wrk && $(RUN) -m bench.bench_api $(PHOTOS) $(ARGS)
bench-bulk:  ## photos per second of the command line (PHOTOS=folder)
	$(PREPARE) && $(RUN) -m bench.bench_bulk $(PHOTOS) $(ARGS)
bench-heat:  ## the heat map beside Grad-CAM (PHOTOS=folder)
	$(PREPARE) && $(RUN) -m scripts.tools heat -m bench.bench_heat $(PHOTOS) $(ARGS)
bench-limit:  ## 20 visitors under a hard limit of 512 MB, 100 under 2 GB
	$(PREPARE) && $(RUN) -m bench.bench_limit $(ARGS)
bench-page:  ## opening the page, beside Jupyter's, Voilà's, Gradio's
	$(PREPARE) && $(RUN) -m bench.bench_page $(ARGS)
bench-parity:  ## answers of export.onnx beside Learner's (PHOTOS=folder)
	$(PREPARE) && $(RUN) -m bench.bench_parity $(PHOTOS) $(ARGS)
bench-site:  ## the static site in Chromium (PHOTOS=folder)
	$(PREPARE) && $(RUN) -m bench.bench_site $(PHOTOS) $(ARGS)
bench-train:  ## training over five splits: DATA=folder of sets
	$(PREPARE) && $(RUN) -m bench.bench_train $(DATA) $(ARGS)
bench-visitors:  ## many visitors at the same time, beside Gradio (minutes)
	$(PREPARE) && $(RUN) -m bench.bench_visitors $(ARGS)
