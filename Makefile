# One line each; the work is done in scripts/ and icon_classifier/. `make help` lists them.
PYTHON ?= $(or $(shell command -v python3.11),python3)
RECIPE ?= bears
RUN = .venv/bin/python
PREPARE = @$(PYTHON) -m scripts.prepare
export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help
.PHONY: help app setup test lint format audit deploy-check release-model lock clean bench bench-page bench-parity bench-visitors test-visits train bench-train
.PHONY: test-hostile soak fuzz bench-answers bench-heat bench-api bench-bulk bench-limit test-scale

help:  ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' Makefile
app:  ## serve the page on http://localhost:8866 (PORT=... for another port)
	@$(PYTHON) -m scripts.serve
setup:  ## install what serving needs, build the template, compile the model
	$(PREPARE)
test:  ## install what tests need, a browser included, and run all tests (ARGS=... for pytest)
	$(PREPARE) --tests && $(RUN) -m pytest -n 2 --dist loadfile $(ARGS)
lint:  ## ruff, ruff format and mypy --strict; changes nothing
	$(PREPARE) --tests && $(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(RUN) -m mypy -p icon_classifier -p scripts
format:  ## let ruff format the code and mend what it can
	$(PREPARE) --tests && $(RUN) -m ruff format . && $(RUN) -m ruff check --fix .
audit:  ## ask the advisory database about every locked package
	$(PREPARE) --tests && $(RUN) -m scripts.audit
deploy-check:  ## play Heroku, Binder and a container host; a table of sizes, times and memory (HOSTS=heroku for one)
	$(PREPARE) --tests && $(RUN) -m scripts.deploy_check $(HOSTS)
release-model:  ## check EXPORT=path and make it the page's model (ARGS=--worse lets worse figures pass)
	$(PREPARE) --tests && $(RUN) -m scripts.release_model "$(EXPORT)" $(ARGS)
lock:  ## renew the locked versions and hashes (ARGS=--newest leaves the pins of requirements.in)
	@$(PYTHON) -m scripts.lock $(ARGS)
clean:  ## remove what was installed and built
	rm -rf .venv build export.onnx template/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
bench:  ## what the main job costs, beside the plain page that loads fastai in its kernel
	$(PREPARE) --tests && $(RUN) -m bench.bench_main
bench-parity:  ## do export.onnx and the Learner answer alike? (PHOTOS=folder)
	$(PREPARE) --tests && $(RUN) -m bench.bench_parity $(PHOTOS)
bench-page:  ## what opening the page takes, beside Voilà's stock page and Gradio's
	$(PREPARE) --tests && $(RUN) -m bench.bench_page
bench-visitors:  ## many visitors at once, beside the plain page and Gradio's (minutes)
	$(PREPARE) --tests && $(RUN) -m bench.bench_visitors
test-visits:  ## fifty visits leave no process, descriptor or file behind (minutes)
	$(PREPARE) --tests && VISITS=50 $(RUN) -m pytest tests/integration/test_kernels.py
train:  ## train by train.ipynb: RECIPE=bears DATA=folder (ARGS='-p compare False'); the report stays in reports/
	$(PREPARE) --tests && mkdir -p reports && $(RUN) -m papermill train.ipynb reports/train-$(RECIPE).ipynb --kernel python3 --log-output -p recipe $(RECIPE) $(if $(DATA),-p data "$(DATA)") $(ARGS)
bench-train:  ## how good and how fast training is, over five splits: DATA=folder with bears/ and dogs/ (ARGS=--plain)
	$(PREPARE) --tests && $(RUN) -m bench.bench_train $(DATA) $(ARGS)
bench-answers:  ## from a photo to its answer on the page: drop, click, heat map
	$(PREPARE) --tests && $(RUN) -m bench.bench_answers
bench-limit:  ## twenty visitors under a hard limit of 512 MB: is everybody answered? (ARGS='photo.jpg --megabytes 512')
	$(PREPARE) --tests && $(RUN) -m bench.bench_limit $(ARGS)
bench-api:  ## the JSON API beside a plain Starlette app and Gradio's API (needs wrk)
	$(PREPARE) --tests && $(RUN) -m scripts.tools wrk && $(RUN) -m bench.bench_api
bench-bulk:  ## photos per second of the command line, beside learn.get_preds (PHOTOS=folder)
	$(PREPARE) --tests && $(RUN) -m bench.bench_bulk $(PHOTOS)
test-scale:  ## test several servers behind nginx, and Ray; installs both
	$(PREPARE) --tests && $(RUN) -m scripts.tools ray nginx && $(RUN) -m pytest tests/scale $(ARGS)
bench-heat:  ## does the heat map agree with Grad-CAM? (PHOTOS=folder)
	$(PREPARE) --tests && $(RUN) -m pip install -q --no-deps --target build/grad-cam grad-cam==1.5.7 ttach==0.0.3 opencv-python-headless==5.0.0.93 && PYTHONPATH=build/grad-cam $(RUN) -m bench.bench_heat $(PHOTOS)
test-hostile:  ## hostile visitors and bad days: all of it (minutes; ARGS=... for pytest)
	$(PREPARE) --tests && HOSTILE=1 $(RUN) -m pytest tests/hostile $(ARGS)
soak:  ## visitors come and go for MINUTES=10; fails if anything has grown
	$(PREPARE) --tests && $(RUN) -m tests.hostile.soak $(or $(MINUTES),10)
fuzz:  ## fuzz the reading of photos for SECONDS=60, guided by coverage; installs atheris into build/
	$(PREPARE) --tests && $(RUN) -m pip install -q --no-deps --only-binary :all: --target build/atheris atheris==3.0.0 && PYTHONPATH=build/atheris $(RUN) -m tests.hostile.fuzz $(or $(SECONDS),60)
