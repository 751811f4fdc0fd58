# All images of the mesh. `docker compose build` builds those used by docker-compose.yml; to build a single
# one:
#
#   docker build --target topsail --tag topsail .
#
#   topsail         control plane, `topsail init`, pod network holder, and the bundled proxy as sidecar
#   sidecar-rust    the same image, named to match sidecar-envoy
#   sidecar-envoy   the same with Envoy
#   bookinfo        a service of the sample application
#   bookinfo-rust   a service of the sample application with its sidecar in the same container
#   bookinfo-envoy  the same with Envoy
#
# The classic builder builds stages in file order, so they are ordered by dependency.
ARG DEBIAN=debian:bookworm-20250520-slim
ARG RUST=rust:1.95.0-slim-bookworm
ARG ENVOY=envoyproxy/envoy:v1.40.0

# Runtime dependencies: the C library, CA certificates, users, and the tools used by `topsail iptables`. No
# shell. /envoy holds what Envoy requires in addition.
FROM ${DEBIAN} AS files
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates iptables \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /image
RUN set -eu; \
    mkdir -p etc/ssl/certs run/topsail tmp usr/bin usr/lib usr/lib64 usr/sbin usr/share/doc var/lib/topsail; \
    for folder in bin lib lib64 sbin; do ln -s "usr/$folder" "$folder"; done; \
    cp --archive /usr/sbin/xtables-nft-multi usr/sbin/; \
    for tool in iptables ip6tables; do \
        for form in '' -save -restore; do ln -s xtables-nft-multi "usr/sbin/$tool$form"; done; \
    done; \
    lib=$(dirname "$(ldd /usr/sbin/xtables-nft-multi | grep --only-matching '/[^ ]*/libc\.so\.6')"); \
    mkdir -p ".$lib/xtables" "/envoy/usr$lib"; \
    for name in CONNMARK CT DNAT MARK NAT REDIRECT TPROXY connmark conntrack mark owner socket standard tcp udp; do \
        for file in "$lib/xtables"/lib*t_"$name.so"; do [ ! -e "$file" ] || cp --archive "$file" ".$lib/xtables/"; done; \
    done; \
    ls "$lib"/libc.so.6 "$lib"/libgcc_s.so.1 "$lib"/libm.so.6 >libraries; \
    ldd /usr/sbin/xtables-nft-multi | grep --only-matching '/lib[^ ]*' >>libraries; \
    sort --unique libraries | while read -r file; do cp --dereference "$file" ".$file"; done; \
    rm libraries; \
    for name in dl m pthread resolv rt; do cp --dereference "$lib/lib$name.so".[0-9]* "/envoy/usr$lib/"; done; \
    cp /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/; \
    for package in ca-certificates iptables libc6 libgcc-s1 libmnl0 libnftnl11 libxtables12; do \
        mkdir "usr/share/doc/$package"; \
        cp --dereference "/usr/share/doc/$package/copyright" "usr/share/doc/$package/"; \
    done; \
    for user in root:0 topsail:1337 application:1000; do \
        echo "${user%:*}:x:${user#*:}:${user#*:}:${user%:*}:/:/usr/sbin/nologin" >>etc/passwd; \
        echo "${user%:*}:x:${user#*:}:" >>etc/group; \
    done; \
    echo 'hosts: files dns' >etc/nsswitch.conf; \
    chmod 1777 tmp; \
    chmod 700 run/topsail var/lib/topsail; \
    chown 1337:1337 run/topsail var/lib/topsail

FROM scratch AS base
COPY --from=files /image /
ENV PATH=/usr/sbin:/usr/bin

# The binaries: compiled here or, if BINARIES names a directory of the build context, copied from there (RUST
# may then be any image with a shell).
FROM ${RUST} AS programs
ARG BINARIES=
WORKDIR /topsail
COPY . .
# Packed relative relocations take a twelfth of the space.
ENV RUSTFLAGS="-C link-arg=-Wl,-z,pack-relative-relocs"
RUN mkdir /programs \
 && if [ -z "$BINARIES" ]; then \
        cargo build --locked --profile dist --bin topsail --example bookinfo \
     && cp target/dist/topsail target/dist/examples/bookinfo /programs/; \
    else \
        cp "$BINARIES/topsail" "$BINARIES/bookinfo" /programs/; \
    fi

FROM base AS topsail
COPY --from=programs /programs/topsail /usr/bin/
USER 1337:1337
ENTRYPOINT ["topsail"]
HEALTHCHECK --interval=2s --timeout=5s --start-period=30s CMD ["topsail", "status", "--ready"]

FROM topsail AS sidecar-rust

FROM base AS bookinfo
COPY --from=programs /programs/bookinfo /usr/bin/
USER 1000:1000
ENTRYPOINT ["bookinfo"]

FROM sidecar-rust AS bookinfo-rust
COPY --from=programs /programs/bookinfo /usr/bin/

FROM ${ENVOY} AS envoy

FROM sidecar-rust AS sidecar-envoy
COPY --from=files /envoy /
COPY --from=envoy /usr/local/bin/envoy /usr/bin/

FROM sidecar-envoy AS bookinfo-envoy
COPY --from=programs /programs/bookinfo /usr/bin/

# The default target of `docker build .`.
FROM topsail
