# One image a service, and one with the whole suite:
#
#   docker build --target orchestrator .         or preset_service, runtime_service, iaas_service, health_service
#   docker build .                               `vmshepherd`: the command, and the suite in one process
#
# BuildKit builds it. Nothing here says where packages come from. A machine that has an authority or a package index of
# its own hands them in, and neither is kept in a layer:
#
#   docker build --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt --secret id=pip,src=/etc/pip.conf .
#
# Every image runs as 10001, on a read-only root, without capabilities; it writes to /var/lib/vmshepherd and /tmp alone.

# The official image of Python on Debian; a digest pins it further.
ARG BASE=python:3.11-slim

FROM ${BASE} AS base

FROM base AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# What the lock says, every file by its hash. It has no pip: nobody installs anything into a running container.
FROM builder AS dependencies
COPY requirements.lock ./
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python -m venv --without-pip /opt/vmshepherd && \
    python -m pip --python /opt/vmshepherd install --only-binary :all: --require-hashes -r requirements.lock

# What the stores need beyond that, apart from it: the runtime service alone speaks to databases.
FROM dependencies AS stores
COPY requirements-runtime.lock ./
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python -m pip --python /opt/vmshepherd install --only-binary :all: --root /added --require-hashes -r requirements-runtime.lock

# What the clouds need beyond that: the iaas service alone speaks to them.
FROM dependencies AS clouds
COPY requirements-iaas.lock ./
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python -m pip --python /opt/vmshepherd install --only-binary :all: --root /added --require-hashes -r requirements-iaas.lock

# The wheel, with the stubs that its build generates from the contracts, by the generators that the lock names.
FROM builder AS wheel
COPY requirements-dev.lock ./
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=cache,target=/root/.cache/pip \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python -m venv --without-pip /opt/build && \
    python -m pip --python /opt/build install --only-binary :all: --require-hashes -r requirements-dev.lock
COPY . .
RUN /opt/build/bin/python -m hatchling build -t wheel -d /dist

# What the wheel adds to the environment, apart from it: a change of ours makes one small layer anew.
FROM dependencies AS program
COPY --from=wheel /dist /dist
RUN python -m pip --python /opt/vmshepherd install --no-index --no-deps --root /added /dist/*.whl

FROM base AS suite
RUN groupadd --gid 10001 vmshepherd && \
    useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/vmshepherd --shell /usr/sbin/nologin vmshepherd && \
    install -d -o 10001 -g 10001 -m 0700 /var/lib/vmshepherd && \
    install -d -m 0755 /etc/vmshepherd
ENV PATH=/opt/vmshepherd/bin:$PATH \
    HOME=/var/lib/vmshepherd \
    XDG_STATE_HOME=/var/lib \
    PYTHONDONTWRITEBYTECODE=1
COPY --from=dependencies /opt/vmshepherd /opt/vmshepherd
COPY --from=program /added/opt/vmshepherd /opt/vmshepherd
LABEL org.opencontainers.image.title="VmShepherd" \
      org.opencontainers.image.description="Keeps groups of virtual machines as declared: a suite of gRPC services." \
      org.opencontainers.image.version="2.0.0" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /etc/vmshepherd
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["vmshepherd"]

FROM suite AS preset_service
EXPOSE 50051
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "vmshepherd_kit.probe", "127.0.0.1:50051"]
CMD ["serve", "preset", "-c", "/etc/vmshepherd/vmshepherd.yaml"]

FROM suite AS runtime_service
COPY --from=stores /added/opt/vmshepherd /opt/vmshepherd
EXPOSE 50052
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "vmshepherd_kit.probe", "127.0.0.1:50052"]
CMD ["serve", "runtime", "-c", "/etc/vmshepherd/vmshepherd.yaml"]

FROM suite AS iaas_service
COPY --from=clouds /added/opt/vmshepherd /opt/vmshepherd
EXPOSE 50053
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "vmshepherd_kit.probe", "127.0.0.1:50053"]
CMD ["serve", "iaas", "-c", "/etc/vmshepherd/vmshepherd.yaml"]

FROM suite AS health_service
EXPOSE 50054
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "vmshepherd_kit.probe", "127.0.0.1:50054"]
CMD ["serve", "health", "-c", "/etc/vmshepherd/vmshepherd.yaml"]

FROM suite AS orchestrator
EXPOSE 50055
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "vmshepherd_kit.probe", "127.0.0.1:50055"]
CMD ["serve", "orchestrator", "-c", "/etc/vmshepherd/vmshepherd.yaml"]

# The suite in one process, its presets in /etc/vmshepherd/presets.d; with other arguments, the command.
FROM suite AS vmshepherd
COPY --from=stores /added/opt/vmshepherd /opt/vmshepherd
COPY --from=clouds /added/opt/vmshepherd /opt/vmshepherd
EXPOSE 50055
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "vmshepherd_kit.probe", "127.0.0.1:50055"]
CMD ["up"]
