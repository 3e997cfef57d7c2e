# syntax=docker/dockerfile:1
# docker build -t wsi-minugan .                                   CPU
# docker build -t wsi-minugan --build-arg TORCH_INDEX=https://pypi.org/simple .      CUDA
# docker run --rm --network none -v /slides:/slides:ro -v /results:/results wsi-minugan run /slides -o /results
FROM python:3.13-slim-trixie AS build
WORKDIR /src
COPY . .
# Without .git (see .dockerignore) the version comes from here: --build-arg VERSION="$(git describe --tags)".
ARG VERSION=0.1.dev0
ENV SETUPTOOLS_SCM_PRETEND_VERSION_FOR_WSI_MINUGAN=${VERSION}
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.13-slim-trixie
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" --extra-index-url https://pypi.org/simple torch==2.13.0 \
    && pip install --no-cache-dir --constraint /wheels/constraints.txt /wheels/*.whl \
    && rm -r /wheels \
    && useradd --create-home --uid 1000 lab
USER 1000
WORKDIR /home/lab
ENV OMP_NUM_THREADS=1
HEALTHCHECK NONE
ENTRYPOINT ["wsi-minugan"]
CMD ["--help"]
