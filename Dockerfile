# The gate (default):  docker build -t adapter-check .
#                      docker run --rm --read-only -v "$PWD:/work:ro" adapter-check my-adapter
# Headers alone:       docker build --target headers -t adapter-check .
# The proof:           docker build --target verify -t adapter-verify .
# Training, on CPU:    docker build --target train -t adapter-train .
#
# Everything but torch is installed by hash. The base image is named by the digest of its multi-platform index, as Docker
# Hub stated it for this tag in September and October 2026; `docker buildx imagetools inspect python:3.11-slim-bookworm`
# tells the newest.

ARG PYTHON=python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${PYTHON} AS wheel
WORKDIR /src
COPY . .
# The image has no compiler: zig's, which is a wheel, compiles the kernels.
RUN pip install --no-cache-dir ziglang==0.17.1 \
    && CXX="python -I -m ziglang cc" pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${PYTHON} AS base
ENV PYTHONUNBUFFERED=1
COPY constraints.txt /
COPY hashes /hashes
COPY --from=wheel /wheels /wheels
RUN useradd --uid 10001 --create-home converter
WORKDIR /work

FROM base AS verify
# CPU builds of torch; PyPI's own bring several GB of CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# xllamacpp links the system's OpenMP; Debian keeps one version of it, so a pin would break the build.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir --require-hashes --no-deps --requirement /hashes/verify.txt \
    && wheel=$(echo /wheels/*.whl) \
    && pip install --no-cache-dir --constraint /constraints.txt --extra-index-url "$TORCH_INDEX" "${wheel}[verify]"
USER 10001
ENTRYPOINT ["adapter-verify"]

FROM base AS train
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --require-hashes --no-deps --requirement /hashes/train.txt \
    && wheel=$(echo /wheels/*.whl) \
    && pip install --no-cache-dir --constraint /constraints.txt --extra-index-url "$TORCH_INDEX" "${wheel}[train]"
USER 10001
ENTRYPOINT ["adapter-train"]

# Headers and config alone: 7 MB over the base image, where numpy and gguf make 104 MB of it.
FROM base AS headers
RUN awk '/^click==/,!/\\$/' /hashes/gate.txt > /tmp/click.txt \
    && pip install --no-cache-dir --require-hashes --no-deps --requirement /tmp/click.txt \
    && pip install --no-cache-dir --no-deps /wheels/*.whl
USER 10001
ENTRYPOINT ["adapter-check", "--headers-only"]

FROM base AS gate
RUN pip install --no-cache-dir --require-hashes --no-deps --requirement /hashes/gate.txt \
    && pip install --no-cache-dir --no-deps /wheels/*.whl
USER 10001
ENTRYPOINT ["adapter-check"]
