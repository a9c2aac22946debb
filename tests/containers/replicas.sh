# shellcheck shell=bash disable=SC2034,SC2154,SC2164,SC2317  # tests/docker sets, reads, calls; and it stops at errors
# Several replicas on one database; other databases, other versions of compose.

# Another image, of the same program.
next_image() { docker build -q --build-arg REVISION=next -t ferricorn-test:next . >/dev/null; }

multiplied() {
    say 'two replicas start at once on an empty database'
    local replicas old address_list=()
    dc down -v
    sed -i "s/^WEB_PORT=.*/WEB_PORT=$port-$((port + 3))/" .env
    dc up -d --scale web=2
    mapfile -t old < <(dc ps -q web)
    is replicas ${#old[@]} 2
    for replica in "${old[@]}"; do
        eventually 60 healthy "$replica"
        ! logged "$replica" '[ERROR]' || fail "a replica complains: $(logs "$replica" | grep -F '[ERROR]')"
    done
    is 'migrations of the database' "$(dc exec -T db psql -U ferricorn -tAc 'SELECT count(*) FROM _sqlx_migrations WHERE success')" \
        "$(find service/migrations/postgres -name '*.sql' | wc -l)"

    say 'a rolling update'
    for number in 0 1 2 3; do address_list+=("$(host "${project}_outside"):$((port + number))"); done
    begin_load rolling-close 4 close 'POST /populate' "${address_list[@]}"
    begin_load rolling-keep 4 keep-alive 'POST /populate' "${address_list[@]}"
    next_image
    export WEB_IMAGE=ferricorn-test:next
    dc up -d --no-recreate --scale web=4 web
    mapfile -t replicas < <(dc ps -q web)
    is 'replicas, old and new' ${#replicas[@]} 4
    for replica in "${replicas[@]}"; do eventually 60 healthy "$replica"; done
    for replica in "${old[@]}"; do
        docker stop "$replica" >/dev/null
        is 'exit code' "$(inspect "$replica" '{{.State.ExitCode}}')" 0
        docker rm "$replica" >/dev/null
    done
    end_load rolling-close failed=0 unreachable=0
    end_load rolling-keep failed=0 unreachable=0
    mapfile -t replicas < <(dc ps -q web)
    for replica in "${replicas[@]}"; do
        is 'image of a replica' "$(inspect "$replica" '{{.Config.Image}}')" ferricorn-test:next
    done
    # The next `up` must find nothing to do: it would make all of them anew at once.
    dc up -d --scale web=2
    is 'replicas after another up' "$(dc ps -q web | sort)" "$(printf '%s\n' "${replicas[@]}" | sort)"
    export WEB_IMAGE=ferricorn-test
}

swarm_is_ours=''
no_swarm() {
    docker stack rm "$project" >/dev/null 2>&1 || return 0
    # Called at the exit, too: what cannot be cleared away must not keep the rest.
    within 60 gone "label=com.docker.stack.namespace=$project" || say 'the stack does not go'
    docker secret rm "${project}_password" "${project}_postgres_root" "${project}_database_url" >/dev/null 2>&1 || true
    docker volume rm -f "${project}_db-data" >/dev/null 2>&1 || true
    [ -z "$swarm_is_ours" ] || docker swarm leave --force >/dev/null
}
gone() { [ -z "$(docker ps -aq --filter "$1")$(docker network ls -q --filter "$1")" ]; }

swarmed() {
    say 'the stack on Swarm'
    case $(docker info -f '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}') in
        'active true') ;;
        'inactive false')
            docker swarm init --advertise-addr 127.0.0.1 >/dev/null
            swarm_is_ours=yes
            ;;
        *)
            say 'left out: the engine is in a swarm, and not its manager'
            return
            ;;
    esac
    dc down -v
    local password=swarm-$secret_core
    printf %s "$password" | docker secret create "${project}_password" - >/dev/null
    head -c 24 /dev/urandom | base64 | docker secret create "${project}_postgres_root" - >/dev/null
    printf %s "postgres://ferricorn:$password@db/ferricorn" |
        docker secret create "${project}_database_url" - >/dev/null
    # Names that are no one else's on this machine, and a way in for the load.
    cat >"$work/stack.yml" <<END
version: "3.9"
secrets:
  password: {external: true, name: ${project}_password}
  postgres_root: {external: true, name: ${project}_postgres_root}
  database_url: {external: true, name: ${project}_database_url}
networks:
  inside: {attachable: true}
END
    deploy() {
        CONFIG_NUMBER=$project WEB_PORT=$port WEB_IMAGE=$1 \
            docker stack deploy --resolve-image never -c deploy/stack.yml -c "$work/stack.yml" "$project" >/dev/null 2>&1
    }
    service() { docker service "$1" "${project}_web" "${@:2}"; }
    serving() { [ "$(docker ps -q --filter "name=${project}_web" --filter health=healthy | wc -l)" = "$1" ]; }
    updated() { [ "$(service inspect -f '{{.UpdateStatus.State}}')" = completed ]; }
    ended() { [ -z "$(docker ps -q --filter "name=${project}_$1")" ]; }
    unready() { [[ $(docker exec "$1" ferricorn healthcheck 2>&1) == *'found 503'* ]]; }
    deploy ferricorn-test
    eventually 90 serving 2
    ! service logs 2>&1 | grep -F '[ERROR]' || fail 'a replica complains'
    is 'tasks that ended' "$(service ps -q -f desired-state=shutdown | wc -l)" 0
    docker service inspect "${project}_web" "${project}_db" >"$work/inspect.stack"
    ! grep -F "$secret_core" "$work/inspect.stack" || fail 'the secret stands in docker service inspect'

    say 'its database goes and comes back: no replica is ended for that'
    local task failing=0
    task=$(docker ps -q --filter "name=${project}_web" | head -n 1)
    docker service scale -d "${project}_db=0" >/dev/null
    # Its name goes first: for a while one worker cannot find it, and another has a connection.
    eventually 30 ended db
    eventually 30 unready "$task"
    # More often than the health check may fail.
    while [ "$failing" -lt 5 ]; do
        # Where its name is gone, too, to look that up may take longer than the question waits.
        ! docker exec "$task" ferricorn healthcheck >/dev/null 2>&1 || fail 'ready without a database'
        sleep 3
        failing=$((failing + 1))
    done
    docker service scale -d "${project}_db=1" >/dev/null
    eventually 60 docker exec "$task" ferricorn healthcheck
    is 'tasks that ended' "$(service ps -q -f desired-state=shutdown | wc -l)" 0

    say 'its rolling update'
    next_image
    # By the name of the tasks, which each connection asks anew.
    begin_load_in "${project}_inside" swarm-close 4 close 'POST /populate' tasks.web:5000
    begin_load_in "${project}_inside" swarm-keep 4 keep-alive 'POST /populate' tasks.web:5000
    # And through the published port, which Swarm spreads over the replicas by the kernel's IPVS.
    if [ -e /proc/net/ip_vs ]; then
        eventually 20 answers 200 GET /healthz
        begin_load swarm-port-close 4 close 'POST /populate' "$(host docker_gwbridge):$port"
        begin_load swarm-port-keep 4 keep-alive 'POST /populate' "$(host docker_gwbridge):$port"
    else
        say 'left out: load through the published port, since the kernel has no IPVS'
    fi
    deploy ferricorn-test:next
    eventually 180 updated
    for load in "${!load_pid[@]}"; do
        [[ $load != swarm-* ]] || end_load "$load" failed=0 unreachable=0
    done
    is 'images of the replicas' "$(service ps -f desired-state=running --format '{{.Image}}' | sort | uniq -c | xargs)" \
        '2 ferricorn-test:next'
    is 'errors of the tasks that ended' "$(service ps -f desired-state=shutdown --format '{{.Error}}' | sort | uniq -c | xargs)" 2
    no_swarm
    gone "label=com.docker.stack.namespace=$project" || fail 'the stack does not go'
}

podded() {
    say 'two pods as their manifests have them, on an empty database that starts after them'
    dc down -v
    local manifest=deploy/kubernetes/deployment.yaml password=pod-$secret_core url_file pod address
    url_file=$(sed -n '/name: DATABASE_URL_FILE/{n;s/.*value: //p}' "$manifest")
    docker network create "$project-pods" >/dev/null
    # As the kubelet gives files to the group of a pod.
    docker run -i --rm --network none -v "$project-pods:/secret" --entrypoint bash postgres:17 -euc '
        cd /secret
        read -r password
        printf %s "$password" >password
        head -c 24 /dev/urandom | base64 >postgres_root
        printf %s "postgres://ferricorn:$password@ferricorn-db/ferricorn" >url
        chown 0:999 password postgres_root
        chown 0:65532 url
        chmod 440 *' <<<"$password"
    pod() { # NAME USER OPTION...
        docker run -d --name "$project-pod-$1" --network "$project-pods" --user "$2:$2" --read-only --cap-drop ALL \
            --security-opt no-new-privileges --cpu-period 100000 --cpu-quota 200000 --tmpfs /tmp "${@:3}" >/dev/null
    }
    for pod in 1 2; do
        pod "$pod" 65532 --memory 256m --memory-swap 256m -e "DATABASE_URL_FILE=$url_file" \
            -v "$project-pods:${url_file%/url}:ro" -v "$PWD/deploy/kubernetes:/etc/ferricorn:ro" ferricorn-test
    done
    pod db 999 --network-alias ferricorn-db --memory 512m --memory-swap 512m \
        -e POSTGRES_PASSWORD_FILE=/run/secrets/ferricorn/postgres_root -e ROLE_PASSWORD_FILE=/run/secrets/ferricorn/password \
        -e PGDATA=/var/lib/postgresql/data/pgdata -v "$project-pods:/run/secrets/ferricorn:ro" \
        -v "$PWD/deploy/postgres:/docker-entrypoint-initdb.d:ro" \
        --tmpfs /run/postgresql:uid=999,gid=999 --tmpfs /var/lib/postgresql/data:uid=999,gid=999 postgres:17
    for pod in "$project-pod-1" "$project-pod-2"; do
        address=$(inspect "$pod" "{{(index .NetworkSettings.Networks \"$project-pods\").IPAddress}}"):5000
        while read -r probe; do
            eventually 60 answers 200 GET "$probe"
        done < <(sed -n 's/.*httpGet: {path: \(.*\), port.*/\1/p' "$manifest")
        is 'POST /populate' "$(status POST /populate)" 201
        # As many as its CPU limit, where the machine has so many.
        workers "$pod" "$(($(docker info -f '{{.NCPU}}') > 1 ? 2 : 1))" || fail "workers: $(pids "$pod" | xargs)"
        is 'lines that are not JSON' "$(logs "$pod" | sed '/^{.*}$/d')" ''
        ! logs "$pod" | grep -F -e "$password" -e '"level":"ERROR"' || fail 'a pod complains, or says its password'
    done
    is 'rows of both' "$(rows)" 2
    is 'migrations of the database' "$(docker exec "$project-pod-db" psql -U ferricorn -tAc 'SELECT count(*) FROM _sqlx_migrations WHERE success')" \
        "$(find service/migrations/postgres -name '*.sql' | wc -l)"
    ! logs "$project-pod-db" | grep -F "$password" || fail 'the database says the password'
    is 'what the service is in its database' "$(docker exec "$project-pod-db" psql -U postgres -tAc \
        "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = 'ferricorn'")" 'f|f|f'
    for pod in "$project-pod-1" "$project-pod-2"; do
        docker stop -t 45 "$pod" >/dev/null
        is 'exit code' "$(inspect "$pod" '{{.State.ExitCode}}')" 0
    done
    no_pods
}
no_pods() {
    docker rm -f "$project-pod-1" "$project-pod-2" "$project-pod-db" >/dev/null 2>&1 || true
    docker volume rm -f "$project-pods" >/dev/null 2>&1 || true
    docker network rm "$project-pods" >/dev/null 2>&1 || true
}

exchanged() {
    say 'on MariaDB'
    dc down -v
    sed -i "s/^WEB_PORT=.*/WEB_PORT=$port/; s/^COMPOSE_PROFILES=.*/COMPOSE_PROFILES=mysql/" .env
    dc up -d
    eventually 90 healthy "$(container web)"
    is services "$(dc ps --services --status running | sort | tr '\n' ' ')" 'mysql web '
    is 'POST /populate' "$(status POST /populate)" 201
    is 'DELETE /delete' "$(ask DELETE /delete)" $'200\n{"message":"1 rows deleted"}'
    is 'limits of mysql' "$(inspect "$(container mysql)" '{{with .HostConfig}}{{.Memory}} {{.MemorySwap}} {{.CpuQuota}} {{
        .PidsLimit}}{{end}}')" '536870912 536870912 200000 512'
    dc kill -s HUP web
    eventually 20 logged "$(container web)" 'reloaded: generation 2'
    dc exec -T web ferricorn check >/dev/null

    say 'a backup, and another password, on MariaDB'
    is 'POST /populate' "$(status POST /populate)" 201
    # shellcheck disable=SC2016  # for the shell inside
    dc exec -T mysql bash -c \
        'mariadb-dump -uroot -p"$(</run/credentials/mysql_root)" --single-transaction ferricorn' >"$work/rows.sql"
    is 'DELETE /delete' "$(ask DELETE /delete)" $'200\n{"message":"1 rows deleted"}'
    # shellcheck disable=SC2016  # for the shell inside
    dc exec -T mysql bash -c 'mariadb -uroot -p"$(</run/credentials/mysql_root)" ferricorn' <"$work/rows.sql"
    is 'rows of the backup' "$(rows)" 1
    cp .env "$work/env"
    sed -i 's/^POSTGRES_PASSWORD=.*/POSTGRES_PASSWORD=NEW-password/' .env
    dc up credentials >>"$work/build.log"
    # shellcheck disable=SC2016  # for the shell inside
    dc exec -T mysql bash -c \
        'mariadb -uroot -p"$(</run/credentials/mysql_root)" -e "ALTER USER ferricorn IDENTIFIED BY \"NEW-password\""'
    hup
    eventually 20 logged "$(container web)" 'reloaded: generation 3'
    dc up -d --force-recreate web
    eventually 60 healthy "$(container web)"
    is 'DELETE /delete' "$(ask DELETE /delete)" $'200\n{"message":"1 rows deleted"}'

    dc logs >"$work/logs.mysql"
    ! grep -iF -e "$secret_core" -e 'root password' "$work/logs.mysql" || fail 'a secret stands in the log'
    dc stop mysql
    is 'POST /populate without a database' "$(status POST /populate)" 503
    dc start mysql
    eventually 30 answers 201 POST /populate
    dc down -v
    is 'volumes that are left' "$(docker volume ls -q --filter "label=com.docker.compose.project=$project" --filter name=mysql | wc -l)" 0
    is 'containers that are left' "$(docker ps -aq --filter "label=com.docker.compose.project=$project" | wc -l)" 0
    cp "$work/env" .env
    sed -i 's/^COMPOSE_PROFILES=.*/COMPOSE_PROFILES=postgres/' .env
}

aged() {
    say 'with compose 1.29'
    # Where the distribution has it still, by another name than version 2.
    if ! command -v docker-compose >/dev/null && [[ $(apt-cache policy docker-compose 2>/dev/null) == *'Candidate: 1.29.'* ]]; then
        local sudo=()
        [ "$(id -u)" -eq 0 ] || sudo=(sudo)
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker-compose >>"$work/compose.log" 2>&1 || true
    fi
    if [[ $(docker-compose version --short 2>/dev/null) != 1.29.* ]]; then
        say 'left out: there is no docker-compose 1.29'
        return
    fi
    dc down -v
    compose=(docker-compose)
    local web
    dc up -d
    web=$(container web)
    eventually 60 healthy "$web"
    is 'POST /populate' "$(status POST /populate)" 201
    dc kill -s HUP web
    eventually 20 logged "$web" 'reloaded: generation 2'
    dc stop web
    is 'exit code' "$(inspect "$web" '{{.State.ExitCode}}')" 0
    dc down
    dc up -d
    eventually 60 healthy "$(container web)"
    is rows "$(rows)" 1
    dc down -v
    sed -i 's/^COMPOSE_PROFILES=.*/COMPOSE_PROFILES=mysql/' .env
    dc up -d
    eventually 90 healthy "$(container web)"
    is 'POST /populate' "$(status POST /populate)" 201
    dc down -v
    sed -i 's/^COMPOSE_PROFILES=.*/COMPOSE_PROFILES=postgres/' .env
    compose=(docker compose)
}
