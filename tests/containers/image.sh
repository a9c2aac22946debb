# shellcheck shell=bash disable=SC2034,SC2154,SC2164,SC2317  # tests/docker sets, reads, calls; and it stops at errors
# The files that an operator starts with, and the image.

copied() {
    mkdir "$work/copy"
    git ls-files -z --cached --others --exclude-standard | xargs -0 tar -c | tar -x -C "$work/copy"
    # As the README asks for, whatever this user's mask is; and $work, which holds the load generator.
    chmod -R go+rX "$work" && chmod go+x "$work"
    cd "$work/copy"
}

files() {
    say 'without a password nothing starts, and the error says what to do'
    local error
    error=$(docker compose config -q 2>&1) && fail 'compose takes the file without a password'
    # Compose names the one of its variables that it looks at first.
    [[ $error == *@(POSTGRES_PASSWORD|COMPOSE_PROFILES)*'install -m 600 .env.example .env'* ]] || fail "the error is: $error"
    install -m 600 .env.example .env
    docker compose config -q
    is 'published ports' "$(docker compose --profile '*' config | sed -n 's/^ *published: //p' | sort -u | tr '\n' ' ')" '"3000" "5000" '
    # Prometheus reaches the service, and no database.
    is 'the networks of prometheus' "$(docker compose --profile '*' config |
        sed -n '/^  prometheus:$/,/^  [a-z]*:$/{/^    networks:$/,/^    [a-z_]*:$/s/^      \([a-z]*\):.*/\1/p}')" metrics
    local graces
    mapfile -t graces < <(sed -n 's/^ *stop_grace_period: \([0-9]*\)s$/\1/p' docker-compose.yml deploy/stack.yml)
    for grace in "${graces[@]}"; do
        at_most 'graceful_timeout in seconds' "$(sed -n 's/^graceful_timeout = //p' config.toml)" $((grace - 1))
    done
    docker compose -f deploy/stack.yml config -q 2>/dev/null
    is 'the mode of .env' "$(stat -c %a .env)" 600
    say 'without a database named nothing starts, either'
    printf 'POSTGRES_PASSWORD=x\n' >.env
    error=$(docker compose config -q 2>&1) && fail 'compose takes the file without COMPOSE_PROFILES'
    [[ $error == *COMPOSE_PROFILES=postgres* ]] || fail "the error is: $error"
    printf "POSTGRES_PASSWORD='%s'\nWEB_PORT=%s\nCOMPOSE_PROFILES=postgres\n" "$secret" "$port" >.env
}

# The program's, as Cargo.toml has it.
version() { sed -n '/^version = /{s/.*"\(.*\)"/\1/p;q}' Cargo.toml; }

manifests() {
    say 'the manifests of Kubernetes'
    if command -v kubectl >/dev/null; then
        kubectl kustomize deploy/kubernetes >"$work/kustomized.yaml"
        is kinds "$(sed -n 's/^kind: //p' "$work/kustomized.yaml" | sort | tr '\n' ' ')" \
            'ConfigMap Deployment HorizontalPodAutoscaler NetworkPolicy PodDisruptionBudget Service ServiceAccount '
        is 'the image of the pods' "$(sed -n 's/^ *image: //p' "$work/kustomized.yaml")" "registry.example.com/ferricorn:$(version)"
    else
        say 'left out: what kustomize makes of them, since there is no kubectl'
    fi
    if command -v kubernetes-validate >/dev/null; then
        local file
        for file in "$work"/kustomized.yaml deploy/kubernetes/[!k]*.yaml; do
            [ -e "$file" ] || continue
            kubernetes-validate -k 1.30 --strict "$file" >"$work/validated" 2>&1 || fail "$(cat "$work/validated")"
        done
    else
        say "left out: their schemas, since there is no kubernetes-validate (PyPI)"
    fi
    is 'the role of its database' "$(sed -n '/^  role.sql: |$/,/^---$/{s/^    //p;/^$/p}' deploy/kubernetes/postgres.yaml)" \
        "$(cat deploy/postgres/role.sql)"
    # What the master reads there is what it reads elsewhere.
    is 'what check says' "$(docker run --rm -v "$PWD/deploy/kubernetes:/etc/ferricorn:ro" ferricorn-test check)" \
        "$(docker run --rm ferricorn-test check | sed 's/ok (1 of/ok (9 of/')"
}

built() {
    say 'the image'
    local begun
    build() { begun=$(now_ms); dc build "$@" web >>"$work/build.log" || fail "$(tail -n 30 "$work/build.log")"; }
    build ${cold[@]+"${cold[@]}"}
    figure "build with${cold[*]:+out} a cache: $((($(now_ms) - begun) / 1000)) s"
    if [ -z "$quick" ]; then
        cp service/src/main.rs "$work/main.rs"
        # One that no cache has seen.
        echo "// another source: $begun" >>service/src/main.rs
        build
        figure "build after a change to the source: $((($(now_ms) - begun) / 1000)) s"
        cp "$work/main.rs" service/src/main.rs
        build
    fi
    build
    figure "build after no change: $(($(now_ms) - begun)) ms"
    local size
    size=$(docker image inspect -f '{{.Size}}' ferricorn-test)
    figure "image: $((size / 1000)) kB"
    # 14.4 MB are Debian's, 15.6 the program, of which TLS, HTTP/2, logins and the control commands are 5.
    at_most 'size of the image' "$size" 35000000
    image() { docker image inspect -f "$1" ferricorn-test; }
    is user "$(image '{{.Config.User}}')" 65532:65532
    is 'stop signal' "$(image '{{.Config.StopSignal}}')" SIGTERM
    is 'health check' "$(image '{{json .Config.Healthcheck.Test}}')" '["CMD","/usr/local/bin/ferricorn","healthcheck"]'
    is entrypoint "$(image '{{json .Config.Entrypoint}}')" '["/usr/local/bin/ferricorn"]'
    local label value
    for label in title=ferricorn 'licenses=MIT OR Apache-2.0' "version=$(version)" revision=unknown source=unknown; do
        value=$(image "{{index .Config.Labels \"org.opencontainers.image.${label%%=*}\"}}")
        is "label ${label%%=*}" "$value" "${label#*=}"
    done
    local made base
    base=$(sed -n 's/^FROM \(gcr.io.*\)/\1/p' Dockerfile)
    # shellcheck disable=SC2016  # as it stands in the file
    base=${base/'${DEBIAN_NUMBER}'/$(sed -n 's/^ARG DEBIAN_NUMBER=//p' Dockerfile)}
    for made in "$base" ferricorn-test; do
        made=$(docker create "$made" none)
        docker export "$made" | tar -t | sort >"$work/tree.${made:0:12}"
        docker rm "$made" >/dev/null
        mv "$work/tree.${made:0:12}" "$work/tree.$((++trees))"
    done
    ! grep -E '(^|/)(sh|bash|dash|busybox|apt|dpkg|curl)$' "$work/tree.2" || fail 'the image has a shell or tools'
    is 'files of ours' "$(comm -13 "$work/tree.1" "$work/tree.2" | grep -v '/$' | tr '\n' ' ')" \
        "etc/ferricorn/config.toml usr/lib/$(uname -m)-linux-gnu/libgcc_s.so.1 usr/local/bin/ferricorn "
    # The load generator: the standard library alone, so that the compiler is all it takes.
    docker build -q --target dependencies -t ferricorn-test:build . >/dev/null
    docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/examples:/in:ro" -v "$work:/out" ferricorn-test:build \
        rustc --edition 2024 -O -C target-feature=+crt-static -o /out/load /in/load.rs
}
trees=0

counted() {
    say 'workers = "auto" follows the container, not the machine'
    auto() { docker run --rm "$@" ferricorn-test --workers auto config | grep '^workers = '; }
    local line
    for limit in --cpus=1 --cpus=0.5 --cpuset-cpus=0; do
        line=$(auto "$limit")
        [[ $line == *': 1 here' ]] || fail "with $limit: $line"
    done
    line=$(auto)
    [[ $line == *": $(docker info -f '{{.NCPU}}') here" ]] || fail "without a limit: $line"

    # This machine has one version of control groups: this is what the kernel shows of either.
    local made version
    made=$(docker create ferricorn-test)
    docker cp "$made:/usr/local/bin/ferricorn" "$work/ferricorn"
    docker rm "$made" >/dev/null
    local -A shown=(
        [1]='echo 1:cpu:/ >/tmp/groups
            mkdir cpu
            echo 100000 | tee cpu/cgroup.procs cpu/cpu.cfs_period_us cpu/cpu.cfs_quota_us'
        [2]='echo 0::/ >/tmp/groups
            echo cpu >cgroup.controllers
            echo 100000 100000 >cpu.max'
    )
    for version in "${!shown[@]}"; do
        line=$(docker run --rm --cap-add SYS_ADMIN --security-opt apparmor=unconfined \
            -v "$work/ferricorn:/ferricorn:ro" --entrypoint bash postgres:17 -euc "
                mount -t tmpfs none /sys/fs/cgroup
                cd /sys/fs/cgroup
                ${shown[$version]}
                mount --bind /tmp/groups /proc/\$\$/cgroup
                exec /ferricorn --workers auto config" | grep '^workers = ')
        [[ $line == *': 1 here' ]] || fail "with one CPU by version $version of control groups: $line"
    done
}

alone() {
    say 'alone, on SQLite in a volume'
    local name=$project-alone
    dc down -v
    serve() {
        docker run -d --name "$name" --read-only --cap-drop ALL -v "$name:/var/lib/ferricorn/data" \
            -p "$port:5000" ferricorn-test >/dev/null
        eventually 30 healthy "$name"
    }
    serve
    is 'POST /populate' "$(status POST /populate)" 201
    docker stop "$name" >/dev/null
    is 'exit code' "$(inspect "$name" '{{.State.ExitCode}}')" 0
    docker rm "$name" >/dev/null
    serve
    is rows "$(rows)" 1
    # shellcheck disable=SC2016  # for the shell inside
    is 'owners and modes of its files' "$(docker run --rm -v "$name:/data:ro" --entrypoint bash postgres:17 -c \
        'stat -c "%u:%g %a" /data/* | sort -u')" '65532:65532 600'
    docker rm -f "$name" >/dev/null
    docker volume rm "$name" >/dev/null
}
