# The first stage has torch and converts the model; the second has not.
FROM docker.io/library/python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS build
WORKDIR /app
COPY . .
RUN python3 -m scripts.prepare
RUN .venv/bin/python -m scripts.slim --remove

FROM docker.io/library/python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY --from=build /app/icon_classifier icon_classifier
COPY --from=build /app/examples examples
COPY --from=build /app/recipes recipes
# The card may be missing: a pattern may match nothing.
COPY --from=build /app/voila.json /app/icon_classifier.ipynb /app/export.onnx /app/export.m[d] ./
# Only /tmp is written to, so that the file system may be read-only.
ENV PATH=/app/.venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp MALLOC_ARENA_MAX=2 PORT=7860
USER 1000
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz', timeout=4)"]
CMD ["sh", "-c", "exec voila icon_classifier.ipynb --port=$PORT --Voila.ip=0.0.0.0 --no-browser"]
