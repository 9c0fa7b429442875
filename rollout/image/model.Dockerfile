# The image of a model alone, for the component `model-image`: an init container copies it into a pod whose server has none.
ARG BASE=python:3.11-slim
FROM ${BASE}
COPY models /models
USER 1034:1034
