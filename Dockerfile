# ferricorn with its bundled service, in an image without a shell.
#
#   docker build -t ferricorn .
#   docker run --read-only --cap-drop ALL -v ferricorn:/var/lib/ferricorn/data -p 5000:5000 ferricorn
#
# The three stages: what we depend on (built again only when Cargo.lock changes), the program, the
# image. Both Debian releases must be the same: the program is linked to the first one's libc.
ARG RUST_VERSION=1.95
ARG DEBIAN_NAME=bookworm
ARG DEBIAN_NUMBER=12

FROM rust:${RUST_VERSION}-slim-${DEBIAN_NAME} AS dependencies
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY service/Cargo.toml service/
# A program that does nothing stands in for ours. Cargo wants to see every target that Cargo.toml names:
# ours, and the benches.
RUN mkdir src benches service/src \
 && echo 'fn main() {}' | tee src/lib.rs service/src/main.rs \
        $(sed -n '/^\[\[bench]]/,/^name/s/^name = "\(.*\)"/benches\/\1.rs/p' Cargo.toml) \
 && cargo build --release --locked --bin ferricorn

FROM dependencies AS program
# With `--build-arg PROFILED=yes` a request costs an eighth less processor time, and the build takes three
# times as long: see bench/profiled.
ARG PROFILED=
COPY bench bench
COPY service service
COPY src src
# Cargo goes by the times of files: ours must be younger than the stand-ins'.
RUN touch src/lib.rs service/src/main.rs \
 && if [ -n "$PROFILED" ]; then \
        apt-get update && apt-get install -y --no-install-recommends python3 wrk \
     && rustup component add llvm-tools \
     && bench/profiled ferricorn \
     && built=target/profiled/release; \
    else \
        cargo build --release --locked --bin ferricorn && built=target/release; \
    fi \
 && install -D "$built/ferricorn" /image/usr/local/bin/ferricorn \
 && install -D -m 644 -t "/image/usr/lib/$(uname -m)-linux-gnu" "/usr/lib/$(uname -m)-linux-gnu/libgcc_s.so.1" \
 && install -d /image/etc/ferricorn \
 && "$built/ferricorn" config --reference >/image/etc/ferricorn/config.toml \
 && install -d -m 700 -o 65532 -g 65532 /image/var/lib/ferricorn /image/var/lib/ferricorn/data

# It has the C library. The one library besides that the program is linked to, of stack traces, comes with
# the program; the image that has it has OpenSSL and C++, too, which are a fifth of all.
FROM gcr.io/distroless/base-nossl-debian${DEBIAN_NUMBER}:nonroot
# That of Cargo.toml.
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="ferricorn" \
      org.opencontainers.image.description="The iron unicorn: a Gunicorn-style multi-worker server" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=program /image /
# The mask is set here and not in config.toml, which is often replaced by a mounted one.
ENV FERRICORN_CONFIG=/etc/ferricorn/config.toml \
    FERRICORN_UMASK=0077
WORKDIR /var/lib/ferricorn
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 5000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=75s --retries=3 \
    CMD ["/usr/local/bin/ferricorn", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/ferricorn"]
