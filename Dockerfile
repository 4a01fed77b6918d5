# CPU:  docker build -t galaxy-zoo-vgg16 .
# CUDA: docker build --build-arg EXTRAS=gpu -t galaxy-zoo-vgg16 .      then docker run --gpus all
# Data, runs and results lie in the mounted folder:
#       docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" galaxy-zoo-vgg16 preprocess --src kaggle
FROM python:3.13-slim

# Extras of setup.py, separated by commas: gpu, jax-gpu, fits, export, dask.
ARG EXTRAS=""

WORKDIR /opt/galaxy-zoo-vgg16
COPY setup.py pyproject.toml README.md LICENSE ./
COPY tfrecords tfrecords
COPY preprocess preprocess
COPY trainer trainer
RUN pip install --no-cache-dir "/opt/galaxy-zoo-vgg16${EXTRAS:+[$EXTRAS]}"

# Any user may run it: what Keras and matplotlib keep goes to /tmp.
ENV HOME=/tmp
USER 1000
WORKDIR /work
CMD ["trainer", "--help"]
