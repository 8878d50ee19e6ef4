# The digest is that of the index of every platform.
ARG BASE_IMAGE=docker.io/library/python:3.13.14-slim-bookworm@sha256:67a1e1f215ccda113cfc024e8639049257e88f273898f595b61476d128d387e8

FROM ${BASE_IMAGE} AS build
# For a build without a network: --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/wheels
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# Two environments: the second one is the product and never holds pip.
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/watcher
COPY requirements-build.lock requirements.lock ./
RUN /build/bin/pip install --no-deps --require-hashes --only-binary :all: -r requirements-build.lock \
    && /build/bin/pip --python /opt/watcher/bin/python install --no-deps --require-hashes --only-binary :all: -r requirements.lock \
    && /build/bin/pip check
COPY LICENSE README.md pyproject.toml ./
COPY watcher watcher
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && /build/bin/pip --python /opt/watcher/bin/python install --no-deps --no-index /dist/*.whl \
    && /build/bin/pip --python /opt/watcher/bin/python check

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="deployment-watcher" \
      org.opencontainers.image.description="Follows every Kubernetes Deployment and tells who must know when one is degraded or recovered" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN install --directory --owner=65532 --group=65532 --mode=0750 /var/lib/watcher
COPY --from=build /opt/watcher /opt/watcher
# The root filesystem may be read-only: bytecode is compiled already, and only the store's folder is written to.
# The user has no entry in /etc/passwd, so nothing but this says where its home is.
ENV PATH=/opt/watcher/bin:$PATH HOME=/var/lib/watcher PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /var/lib/watcher
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["watcher"]
CMD ["run"]
