# Every image of the mesh. `docker compose build` builds those that docker-compose.yml uses; one alone:
#
#   docker build --target topsail --tag topsail .
#
#   topsail         the control plane, `topsail init`, what holds a pod's network, and the bundled proxy as sidecar
#   sidecar-rust    the same image, under the name that goes with sidecar-envoy
#   sidecar-envoy   that and Envoy
#   bookinfo        a service of the sample, alone
#   bookinfo-rust   a service of the sample, with its sidecar in the same container
#   bookinfo-envoy  the same with Envoy
#
# The stages are in the order in which a builder that does not look ahead (the classic one) needs them.
ARG DEBIAN=debian:bookworm-20250520-slim
ARG RUST=rust:1.95.0-slim-bookworm
ARG ENVOY=envoyproxy/envoy:v1.40.0

# What a program needs around it: the C library, certificates of public authorities, users, and the tools of
# `topsail iptables`. No shell. /envoy is what Envoy needs besides.
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

# The programs: compiled here, or, where BINARIES names a folder of the build context, taken from there (RUST may then
# be any image with a shell).
FROM ${RUST} AS programs
ARG BINARIES=
WORKDIR /topsail
COPY . .
# Relocations take a twelfth of their space.
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

# What `docker build .` is for.
FROM topsail
