# The first stage has torch and node and compiles the model; the second has neither.
FROM docker.io/library/python:3.11-slim-bookworm AS build
COPY --from=docker.io/library/node:22-bookworm-slim /usr/local/bin/node /usr/local/bin/node
COPY --from=docker.io/library/node:22-bookworm-slim /usr/local/lib/node_modules /usr/local/lib/node_modules
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
WORKDIR /app
COPY . .
RUN python3 -m scripts.prepare
RUN .venv/bin/python -m scripts.slim --remove

FROM docker.io/library/python:3.11-slim-bookworm
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY --from=build /app/icon_classifier icon_classifier
COPY --from=build /app/template/voila template/voila
COPY --from=build /app/voila.json /app/icon_classifier.ipynb /app/export.onnx /app/pyproject.toml ./
# Nothing is written but below /tmp, so that the file system may be read-only.
ENV PATH=/app/.venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp MALLOC_ARENA_MAX=2 PORT=7860
USER 1000
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz', timeout=4)"]
CMD ["sh", "-c", "exec voila icon_classifier.ipynb --port=$PORT --Voila.ip=0.0.0.0 --port_retries=0 --no-browser"]
