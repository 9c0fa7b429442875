# The image of one Bento: `bentune image TAG` fills its context. The weights are the last layer.
ARG BASE=python:3.11-slim

FROM ${BASE} AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /venv
COPY requirements.txt /
# Gone again is what only builds, tests, or fetches from hubs.
RUN /venv/bin/pip install --quiet --no-deps --only-binary :all: -r /requirements.txt \
    && /venv/bin/pip uninstall --quiet --yes hf-xet setuptools pip \
    && cd /venv/lib/python3*/site-packages \
    && rm -rf onnxruntime/tools onnxruntime/transformers onnxruntime/quantization */tests */*/tests */*/*/tests \
    && find . -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -delete

FROM ${BASE} AS server
# /tmp is all that is written to: the root may be read-only. The server's own folders lead there.
RUN mkdir -p /home/bentoml/models /home/bentoml/bentos /home/bentoml/envs \
    && ln -s /tmp /home/bentoml/tmp && ln -s /tmp /home/bentoml/prometheus_multiproc_dir
ENV PATH=/venv/bin:$PATH \
    HOME=/tmp \
    BENTOML_HOME=/home/bentoml \
    BENTOML_CONTAINERIZED=true \
    BENTOML_DO_NOT_TRACK=true \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
COPY --from=packages /venv /venv
COPY bento /home/bentoml/bento
USER 1034:1034
EXPOSE 3000
STOPSIGNAL SIGTERM
# Nothing bounds BentoML's drain unless it is told.
ENTRYPOINT ["bentoml", "serve", "/home/bentoml/bento", "--host", "0.0.0.0", "--port", "3000", "--timeout-graceful-shutdown", "30"]

FROM server
COPY models /home/bentoml/models
