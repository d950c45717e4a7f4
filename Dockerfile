# One image a service: docker build --target registry|predictor|collector|gateway|cli .
#
# Every image runs as uid 65532 and needs a writable root for nothing: /var/lib/memharvest is the only folder that a service
# writes to (registry with SQLite, predictor). Only the collector's carries libvirt's client library.
# Where the two base images come from can be changed by --build-arg.
ARG NODE_IMAGE=node:24-bookworm-slim
ARG RUST_IMAGE=rust:1.95-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

# The dashboard, which ends up in the gateway's program.
FROM ${NODE_IMAGE} AS ui
WORKDIR /src/gateway/ui
COPY gateway/ui/package.json gateway/ui/package-lock.json ./
RUN npm ci --no-audit --no-fund && npm install --no-save --no-audit --no-fund @bufbuild/buf@1.75.0
COPY proto /src/proto
COPY gateway/ui ./
RUN npm run generate && npm run build

FROM ${RUST_IMAGE} AS build
# Debian's own versions: a pinned one is gone with its next security fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libvirt-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
COPY --from=ui /src/gateway/ui/dist gateway/ui/dist
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --workspace --bins \
    && mkdir /out \
    && for program in memharvest memharvest-registry memharvest-predictor memharvest-collector memharvest-gateway; do \
        install --mode 755 "target/release/${program}" /out/ || exit 1; \
    done

FROM ${BASE_IMAGE} AS base
# Certificates of public authorities: an OpenID Connect issuer or a PostgreSQL server may show one of theirs.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 memharvest \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin memharvest \
    && install --directory --owner 65532 --group 65532 --mode 750 /var/lib/memharvest
COPY LICENSE NOTICE /usr/share/doc/memharvest/
WORKDIR /var/lib/memharvest
# Beyond loopback a service starts only with TLS and authentication, or when it is told MEMHARVEST_INSECURE=true.
ENV MEMHARVEST_LOG_FORMAT=json
USER 65532:65532

FROM base AS registry
COPY --from=build /out/memharvest-registry /usr/bin/
ENV MEMHARVEST_LISTEN=0.0.0.0:7401 MEMHARVEST_ADMIN_LISTEN=0.0.0.0:9401 \
    MEMHARVEST_DATABASE=/var/lib/memharvest/memharvest.db
EXPOSE 7401 9401
ENTRYPOINT ["/usr/bin/memharvest-registry"]

FROM base AS predictor
COPY --from=build /out/memharvest-predictor /usr/bin/
ENV MEMHARVEST_LISTEN=0.0.0.0:7402 MEMHARVEST_ADMIN_LISTEN=0.0.0.0:9402 \
    MEMHARVEST_DATA_DIR=/var/lib/memharvest
EXPOSE 7402 9402
ENTRYPOINT ["/usr/bin/memharvest-predictor"]

FROM base AS collector
USER 0:0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libvirt0 \
    && rm -rf /var/lib/apt/lists/*
USER 65532:65532
COPY --from=build /out/memharvest-collector /usr/bin/
ENV MEMHARVEST_LISTEN=0.0.0.0:7403 MEMHARVEST_ADMIN_LISTEN=0.0.0.0:9403
EXPOSE 7403 9403
ENTRYPOINT ["/usr/bin/memharvest-collector"]

FROM base AS gateway
COPY --from=build /out/memharvest-gateway /usr/bin/
ENV MEMHARVEST_LISTEN=0.0.0.0:8080 MEMHARVEST_ADMIN_LISTEN=0.0.0.0:9404
EXPOSE 8080 9404
ENTRYPOINT ["/usr/bin/memharvest-gateway"]

# The operator's command. It asks a gateway, and starts nothing here.
FROM base AS cli
COPY --from=build /out/memharvest /usr/bin/
ENTRYPOINT ["/usr/bin/memharvest"]
