# syntax=docker/dockerfile:1
# Three images from one file: `api` (no torch, no Celery), `serving` (ONNX Runtime) and `worker` (everything that reads models).
#   docker build --target api -t slipway-api .
#   docker build --target serving -t slipway-serving .
#   docker build --target worker -t slipway-worker .                                    CPU
#   docker build --target worker --build-arg TORCH_BACKEND=auto -t slipway-worker-gpu . the build for the GPU at hand

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONPATH=/app PATH=/opt/venv/bin:$PATH
RUN groupadd --gid 10001 slipway \
    && useradd --uid 10001 --gid slipway --home-dir /var/lib/slipway --no-create-home --shell /usr/sbin/nologin slipway \
    && install -d -o slipway -g slipway -m 0700 /var/lib/slipway /scratch
WORKDIR /app

FROM base AS installer
COPY requirements/installer.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/installer.txt && python -m venv --without-pip /opt/venv
ENV VIRTUAL_ENV=/opt/venv UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1

FROM installer AS api-libraries
COPY requirements/api.txt requirements/
RUN uv pip install --no-deps --require-hashes -r requirements/api.txt

FROM installer AS serving-libraries
COPY requirements/serving.txt requirements/
RUN uv pip install --no-deps --require-hashes -r requirements/serving.txt

FROM installer AS worker-libraries
ARG TORCH_BACKEND=cpu
# Before our pyproject.toml, whose overrides keep torch out of every resolution. Its version, and torchvision's, are those named there.
RUN --mount=type=bind,source=pyproject.toml,target=/tmp/pyproject.toml \
    uv pip install --torch-backend=$TORCH_BACKEND $(sed -n 's/.*"\(torch\(vision\)\?==[^"]*\)".*/\1/p' /tmp/pyproject.toml)
COPY requirements/worker.txt requirements/
RUN uv pip install --no-deps --require-hashes -r requirements/worker.txt

FROM base AS api
COPY --from=api-libraries /opt/venv /opt/venv
COPY alembic.ini ./
COPY shared shared
COPY registry registry
COPY pipeline pipeline
COPY migrations migrations
COPY api api
USER slipway
EXPOSE 8000
CMD ["python", "-m", "api"]

FROM base AS serving
COPY --from=serving-libraries /opt/venv /opt/venv
COPY shared shared
COPY registry registry
COPY pipeline pipeline
COPY serving serving
USER slipway
EXPOSE 8100
CMD ["python", "-m", "serving"]

FROM base AS worker
COPY --from=worker-libraries /opt/venv /opt/venv
COPY shared shared
COPY registry registry
COPY pipeline pipeline
COPY workers workers
USER slipway
CMD ["python", "-m", "workers", "cpu"]
